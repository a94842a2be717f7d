#!/bin/sh
# Installs what a project without code requires, such as '.[server]', into the environment of the images, pinned by
# constraints.txt. Where that includes torch (VARIANT is set), TORCH_INDEX_URL is where it comes from: by default for a
# CPU PyTorch's index of small builds, for CUDA, or where it is set to nothing, the ordinary index.
set -eu
unset PYTHONPATH  # what the image has of our code is not to be replaced
venv() { pip --python /opt/scoreserve/venv/bin/python --disable-pip-version-check --quiet "$@"; }

if [ "${VARIANT:-}" = cpu ]; then
    export TORCH_INDEX_URL="${TORCH_INDEX_URL-https://download.pytorch.org/whl/cpu}"
fi
if [ -n "${VARIANT:-}" ]; then
    sh torch.sh pip --python /opt/scoreserve/venv/bin/python --no-cache-dir
fi
venv install --no-cache-dir --root-user-action ignore --constraint constraints.txt "$1"
venv uninstall --yes --root-user-action ignore scoreserve
