#!/bin/sh
# Installs what a project without code requires, such as '.[server]', into the environment of the images, pinned by
# constraints.txt. TORCH_INDEX_URL, if it is set, is where torch comes from.
set -eu
unset PYTHONPATH  # what the image has of our code is not to be replaced
venv() { pip --python /opt/scoreserve/venv/bin/python --disable-pip-version-check --quiet "$@"; }

if [ -n "${TORCH_INDEX_URL:-}" ]; then
    venv install --no-cache-dir --root-user-action ignore --constraint constraints.txt --index-url "$TORCH_INDEX_URL" torch
fi
venv install --no-cache-dir --root-user-action ignore --constraint constraints.txt "$1"
venv uninstall --yes --root-user-action ignore scoreserve
