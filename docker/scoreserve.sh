#!/bin/sh
# `scoreserve` in the images: ours, with what is secret from files: the address of Redis, which has a password in it, and
# what the service seals webhooks with. So none is in an image, in a configuration, or in what `docker inspect` shows; and
# whoever is in a container need not name them.
set -eu
for name in SCORESERVE_REDIS_URL SCORESERVE_SEALING_SECRET; do
    eval "file=\${${name}_FILE:-}"
    [ -n "$file" ] || continue
    if [ ! -r "$file" ]; then
        echo "error: ${name}_FILE is $file, which cannot be read: mount it there" >&2
        exit 2
    fi
    export "$name=$(cat "$file")"
done
exec /opt/scoreserve/app/bin/scoreserve "$@"
