# Every target does the set-up it needs: python3 >= 3.11 with venv, and a C compiler, are all it takes.

PYTHON ?= python3
MINUTES ?= 10
VENV := .venv
RUN := $(VENV)/bin/python
BUILT := $(VENV)/.built

COMPILED := $(wildcard cowfs/*.pyx cowfs/*.pxd)
# Scripts in tools/ have no suffix; linters find them by their first line.
SCRIPTS := $(shell grep -lsE '^\#!.*python' tools/*)
CHECKED := _cowfs_program.py cowfs tests tools $(SCRIPTS)

.PHONY: help venv demo test crashfuzz faultfuzz model flip forge fuzz sanitize bench bench-guard fixtures lint format clean

help: ## Show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22

venv: $(BUILT) ## Set up .venv with cowfs in place and all tools (the other targets do this too)

define INSTALL
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	{ echo "cowfs needs Python 3.11 or newer; '$(PYTHON)' is older or missing. Name another: make PYTHON=python3.12"; exit 1; }
@$(RUN) -m pip --version >/dev/null 2>&1 || { echo "Creating $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
@echo "Installing cowfs and its tools into $(VENV)"
@rm -rf build
@$(RUN) -m pip install -qq --disable-pip-version-check --editable '.[dev,bench]'
endef

# What an extra needs, without building cowfs anew under the others that run.
EXTRA := $(RUN) -c 'import sys, tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"][sys.argv[1]], sep="\n")'

COMPILE = @$(RUN) setup.py --quiet build_ext --inplace

$(BUILT): pyproject.toml setup.py $(COMPILED)
	$(if $(filter pyproject.toml setup.py,$?),$(INSTALL),$(COMPILE))
	@touch $@

demo: $(BUILT) ## The main job from end to end, on the standard library's files
	@$(RUN) tools/demo

test: $(BUILT) ## All tests
	@$(RUN) -m pytest -n 3 --dist worksteal

faultfuzz: $(BUILT) ## More failing I/Os and interrupts than `make test` has time for: MINUTES=10
	@tools/faultfuzz --minutes $(MINUTES)

crashfuzz: $(BUILT) ## More power cuts than `make test` has time for, for so long: MINUTES=10
	@tools/crashfuzz --minutes $(MINUTES)

model: $(BUILT) ## Every state of the commit protocol, as a small model
	@PYTHONPATH=tools $(RUN) -m model

flip: $(BUILT) ## Every byte of small images flipped, one at a time: half an hour on two cores
	@tools/attack flip

forge: $(BUILT) ## Forged images with checksums that are right, for so long: MINUTES=10
	@tools/attack forge --minutes $(MINUTES)

fuzz: $(BUILT) ## The parsers under atheris, for so long: MINUTES=10
	@$(RUN) -c 'import atheris' 2>/dev/null || $(EXTRA) fuzz | \
		xargs $(RUN) -m pip install -qq --disable-pip-version-check
	@mkdir -p build/fuzz
	@PYTHONPATH=tools $(RUN) -m hostile.parse build/fuzz/corpus -max_len=8192 -timeout=10 \
		-max_total_time=$$(($(MINUTES) * 60))

sanitize: $(BUILT) ## The compiled part under AddressSanitizer and UndefinedBehaviorSanitizer
	+@tools/sanitize

bench: $(BUILT) ## Rates of cowfs, LMDB, SQLite, RocksDB and the raw limit on a million keys
	@tools/bench kv

bench-guard: $(BUILT) ## Instructions of fixed kernels, compared with a committed baseline (needs valgrind)
	+@tools/bench guard

fixtures: $(BUILT) ## Make the committed images in fixtures/ anew
	@$(RUN) tools/fixtures

lint: $(BUILT) ## What CI checks besides the tests
	@$(RUN) -m ruff check $(CHECKED) setup.py
	@$(RUN) -m ruff format --check $(CHECKED) setup.py
	@$(RUN) -m mypy $(CHECKED)

format: $(BUILT) ## Put the code into its standard form
	@$(RUN) -m ruff check --fix-only --quiet $(CHECKED) setup.py
	@$(RUN) -m ruff format $(CHECKED) setup.py

clean: ## Remove everything that was built, .venv too
	rm -rf $(VENV) build dist *.egg-info cowfs/*.so .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find cowfs tests tools -name __pycache__ -prune -exec rm -rf {} +
