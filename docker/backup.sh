#!/bin/sh
# Writes the queue as a tar to standard output, while Redis runs: `docker compose exec -T redis sh /scoreserve/backup.sh`.
#
# What is read are hard links, since Redis removes its files when it has rewritten them. One that grows meanwhile is good
# up to where it was read, and so no error; Redis reads it so. DATA is for tests.
set -eu
cd "${DATA:-/data}"
trap 'rm -rf backup' EXIT
whole() {  # everything that is named there is there: Redis may have begun new files in between
    while read -r _ name _; do
        [ -e "backup/appendonlydir/$name" ] || return 1
    done <backup/appendonlydir/appendonly.aof.manifest
}
until rm -rf backup && mkdir backup && cp -al appendonlydir backup && whole; do sleep 0.1; done
tar --warning=no-file-changed -C backup -cf - appendonlydir || [ $? -eq 1 ]
