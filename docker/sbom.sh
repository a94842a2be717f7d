#!/bin/sh
# Lists the Python packages of each image and their licences, as CycloneDX: sbom-api.json, sbom-worker.json and
# sbom-train.json, in the directory that it is called in. They are installed below .sbom as in the images, pinned by
# constraints.txt; EXTRAS and TORCH_INDEX_URL are those of the images. PYTHON: a Python of the images' version.
set -eu
test -x .sbom/bin/cyclonedx-py || {
    "$PYTHON" -m venv .sbom
    .sbom/bin/pip install --disable-pip-version-check --quiet 'cyclonedx-bom>=7,<8'
}
new() { rm -rf .sbom/of && "$PYTHON" -m venv --without-pip .sbom/of; }
pip() { .sbom/bin/pip --python .sbom/of/bin/python --disable-pip-version-check --quiet "$@"; }
install() { pip install --no-compile --constraint constraints.txt ".[$1]"; }
list() {
    .sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file "$1" .sbom/of
    echo "$1"
}

new
install "server${EXTRAS:-}"
list sbom-api.json
new
sh docker/torch.sh .sbom/bin/pip --python .sbom/of/bin/python
install "worker${EXTRAS:-}"
list sbom-worker.json
install train # whose image stands on the worker's
list sbom-train.json
rm -rf .sbom/of
