#!/bin/sh
# The passwords: of the service and of workers for Redis, and of Grafana's admin; and the secret that the service seals
# webhooks with in Redis. Each is in a volume of its own, which only those who need it mount.
#
#   passwords.sh           makes those that are missing: so it does at every `docker compose up`
#   passwords.sh rotate    makes new ones for Redis, and to seal with; the ones before stay valid beside them
#   passwords.sh forget    the ones before are valid no longer
#
# Redis reads them when it starts (docker/redis.sh). SECRETS and REDIS are for tests.
set -eu
secrets=${SECRETS:-/secrets} redis=${REDIS:-redis:6379/0}

write() {  # a file appears at once and whole; who may read it is decided by who mounts the volume
    printf '%s' "$2" >"$1.new"
    chmod 0444 "$1.new"
    mv "$1.new" "$1"
}

make() {
    password=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
    write "$secrets/$1/password" "$password"
    [ "$1" = grafana ] || write "$secrets/$1/redis-url" "redis://$1:$password@$redis"
    echo "made a password for $1"
}

seal() {  # what is sealed with those behind the first can still be read
    secret=$(head -c 32 /dev/urandom | base64 | tr '+/' '-_')
    write "$secrets/service/sealing-secret" "$secret${1:+ $1}"
    echo "made a secret to seal with"
}

case ${1:-make} in
make)
    for user in service worker grafana; do
        [ -s "$secrets/$user/password" ] || make "$user"
    done
    [ -s "$secrets/service/sealing-secret" ] || seal
    ;;
rotate)
    for user in service worker; do
        write "$secrets/$user/password-before" "$(cat "$secrets/$user/password")"
        make "$user"
    done
    seal "$(cut -d' ' -f1 "$secrets/service/sealing-secret")"
    ;;
forget)
    rm -f "$secrets/service/password-before" "$secrets/worker/password-before"
    write "$secrets/service/sealing-secret" "$(cut -d' ' -f1 "$secrets/service/sealing-secret")"
    ;;
*)
    echo "error: '$1' is none of make, rotate, forget" >&2
    exit 2
    ;;
esac
