#!/bin/sh
# `scoreserve` in the images: ours, with the address of Redis, which has a password in it, from a file. So it is in no
# image, in no configuration, and not in what `docker inspect` shows; and whoever is in a container need not name it.
set -eu
if [ -n "${SCORESERVE_REDIS_URL_FILE:-}" ]; then
    if [ ! -r "$SCORESERVE_REDIS_URL_FILE" ]; then
        echo "error: SCORESERVE_REDIS_URL_FILE is $SCORESERVE_REDIS_URL_FILE, which cannot be read: mount it there" >&2
        exit 2
    fi
    SCORESERVE_REDIS_URL=$(cat "$SCORESERVE_REDIS_URL_FILE")
    export SCORESERVE_REDIS_URL
fi
exec /opt/scoreserve/app/bin/scoreserve "$@"
