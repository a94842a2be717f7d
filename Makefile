# Everything sets itself up: the first call makes .venv, later ones find it.
PYTHON ?= python3
BIN := .venv/bin
# Where torch comes from. Without an NVIDIA driver that is PyTorch's index of builds for CPUs, of some 200 MB instead of
# gigabytes; nothing means the ordinary index, which is used too where this one does not answer.
NVIDIA := $(wildcard /proc/driver/nvidia/version)$(shell command -v nvidia-smi 2>/dev/null)
export TORCH_INDEX_URL ?= $(if $(NVIDIA),,$(if $(filter Linux,$(shell uname -s)),https://download.pytorch.org/whl/cpu))

.PHONY: up test check format sbom clean

## run the whole service (Ctrl-C stops it); ARGS="--port 9000" and the like are passed on
up: .venv/.worker
	$(BIN)/scoreserve up $(ARGS)

## run all tests, with a real Valkey of their own; ARGS="tests/models -k noise" and the like are passed on. Many wait for
## processes most of their time, so four at once keep two cores busy; a file's are run by one of the four, which sets up
## once what they share, and in the order of tests/conftest.py. What all the processes import is compiled once.
test: .venv/.dev
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

## format, lint, types, layers, and Lua
check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if command -v luacheck >/dev/null; then luacheck --quiet service worker; \
	else echo 'luacheck is not installed (Debian: lua-check), so what Redis runs is not looked at'; fi

## let ruff mend what it can
format: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

## list the Python packages of the images and their licences, as CycloneDX, in sbom-api.json and so on
sbom:
	PYTHON=$(PYTHON) sh docker/sbom.sh

.venv/.worker: pyproject.toml constraints.txt
	@echo 'installing PyTorch and the rest into .venv, which takes some minutes the first time'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@sh docker/torch.sh $(BIN)/pip
	$(BIN)/pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[server,worker]'
	touch $@

.venv/.dev: .venv/.worker
	$(BIN)/pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv .sbom var build *.egg-info
