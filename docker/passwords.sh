#!/bin/sh
# The passwords: of the service and of workers for Redis, and of Grafana's admin. Each is in a volume of its own, which
# only those who need it mount.
#
#   passwords.sh           makes those that are missing: so it does at every `docker compose up`
#   passwords.sh rotate    makes new ones for Redis; the ones before stay valid beside them
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

case ${1:-make} in
make)
    for user in service worker grafana; do
        [ -s "$secrets/$user/password" ] || make "$user"
    done
    ;;
rotate)
    for user in service worker; do
        write "$secrets/$user/password-before" "$(cat "$secrets/$user/password")"
        make "$user"
    done
    ;;
forget) rm -f "$secrets/service/password-before" "$secrets/worker/password-before" ;;
*)
    echo "error: '$1' is none of make, rotate, forget" >&2
    exit 2
    ;;
esac
