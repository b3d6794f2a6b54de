# Two commands do everything: `make run` and `make test`. Both can be repeated.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || echo python3.11)
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
export PATH := $(BIN):$(PATH)

# Two test processes with two threads each would wait for each other on two cores.
test fast: export OMP_NUM_THREADS := 1

# The order of tests within a file. The gate takes one order everywhere, so that what fails in CI fails here too;
# `make fast` draws another each time, and `make test SEED=$$RANDOM` does.
SEED ?= 1

INSTALLED := $(VENV)/.installed

.PHONY: help run test fast lint docs pictures format lock clean install

help:  ## Show the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*##/\t/'

install: $(INSTALLED)  ## Make the virtual environment

$(INSTALLED): requirements/lock.txt requirements/embedded.txt pyproject.toml
	@$(PYTHON) -c "import sys; (3, 11) <= sys.version_info[:2] <= (3, 13) or sys.exit( \
		'error: this is Python ' + sys.version.split()[0] + '; expected 3.11, 3.12 or 3.13: make run PYTHON=python3.12')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -qq --disable-pip-version-check -r requirements/lock.txt
	$(BIN)/pip install -qq --disable-pip-version-check --no-deps --require-hashes -r requirements/embedded.txt
	$(BIN)/pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pipeline schema
	touch $@

run: $(INSTALLED)  ## Reproduce the demo and show the report
	$(BIN)/python -m pipeline check
	$(BIN)/dvc repro
	$(BIN)/python -m pipeline show

test: $(INSTALLED) lint  ## All tests
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --randomly-seed=$(SEED)

fast: $(INSTALLED)  ## Tests that take less than a second or so each
	$(BIN)/pytest -n 2 -m "not slow and not dvc and not browser"

lint: $(INSTALLED)  ## Format, lint, types, layers, Dockerfile
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

docs: $(INSTALLED)  ## The documentation site, into build/site
	$(BIN)/zensical build --clean --strict
	@echo "open build/site/index.html"

pictures: $(INSTALLED)  ## The pictures of README and docs, from the report in reports/ and the experiments
	$(BIN)/python docs/images/draw.py

format: $(INSTALLED)  ## Put the code into its format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock:  ## Pin what pyproject.toml asks for and lock.txt lacks; with UPGRADE=1 the newest of everything
	UPGRADE=$(UPGRADE) requirements/lock.sh $(PYTHON)

clean:  ## Remove the environment (caches and results stay)
	rm -rf $(VENV)
