#!/bin/sh
# Installs torch alone from TORCH_INDEX_URL, if that is set: sh torch.sh PIP [ITS OPTIONS...]
# Where that index does not answer, the ordinary one is used by what is installed afterwards. What torch requires comes
# from there in any case, since an index of torch need not have the versions that constraints.txt names.
set -eu
[ -n "${TORCH_INDEX_URL:-}" ] || exit 0
"$@" install --disable-pip-version-check --quiet --retries 1 --timeout 20 --no-deps --constraint constraints.txt \
    --index-url "$TORCH_INDEX_URL" torch ||
    echo "$TORCH_INDEX_URL has no torch for us now, so it comes from the ordinary index" >&2
