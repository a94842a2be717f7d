#!/bin/sh
# Starts Redis with the users of users.acl, whose passwords come from files, and with what the queue needs: every job on
# disk within a second, and nothing thrown away when memory is short.
#
# The default user is off but may do all: as that user Redis reads its append-only file, and what it may not do is not
# read (Redis 7.0 drops every transaction, which is every job). Nobody can log in as a user that is off.
set -eu
secrets=${SECRETS:-/secrets} users=${USERS:-/tmp/users.acl}

passwords() {  # ">NEW >OLD", as an ACL has them
    for file in "$secrets/$1/password" "$secrets/$1/password-before"; do
        [ ! -s "$file" ] || printf '>%s ' "$(cat "$file")"
    done
}

case $(redis-server --version) in
*v=7.[01].*) unknown='+client|setinfo ' ;; # which came with Redis 7.2
*) unknown='^$' ;;
esac
umask 077
sed -e "s/$unknown//" -e "s/>CHANGE-ME-SERVICE /$(passwords service)/" -e "s/>CHANGE-ME-WORKER /$(passwords worker)/" \
    "$(dirname "$0")/users.acl" >"$users"
if ! grep -q '^user service on >' "$users" || ! grep -q '^user worker on >' "$users" || grep -q CHANGE-ME "$users"; then
    echo "error: $secrets/service/password and $secrets/worker/password cannot be read: run passwords.sh" >&2
    exit 2
fi
exec redis-server --aclfile "$users" --dir "${DATA:-/data}" \
    --appendonly yes --appendfsync everysec --save '' \
    --maxmemory "${REDIS_MAXMEMORY:-1gb}" --maxmemory-policy noeviction "$@"
