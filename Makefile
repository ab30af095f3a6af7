# Each target's line of help stands behind its name; `make help` prints them.
SHELL := /bin/bash
PYTHON ?= python3
TORCH_INDEX ?=
BIN := .venv/bin
KIND := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps

.DEFAULT_GOAL := help
.PHONY: help quickstart test check docs setup clean chromium bench-generate bench-train bench-filter bench-report bench-quality

help: ## print this list
	@grep -hE '^[a-z][a-z -]*:.*## ' Makefile | sed -E 's/^([a-z -]+):.*## /  make \1\t/' | expand -t 40

quickstart: .venv/ready ## set up and run the main job: no GPU needed, 7 to 15 minutes on 2 cores
	$(BIN)/pipeline run configs/quickstart.yaml

# The test files are shared among the cores. Each process computes with one thread: two processes
# that wait for each other's cores take far longer.
test: .venv/ready-dev chromium ## set up and run the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

check: .venv/ready-dev ## format, lint, types, links and width of the documentation
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m docs.check
	$(BIN)/python -m docs.generate --check

docs: .venv/ready-dev ## write the pages of docs/reference that come from the code
	$(BIN)/python -m docs.generate

bench-generate bench-train: bench-%: .venv/ready-dev ## benchmarks, both sides in one run
	$(BIN)/python -m benchmarks.$*

bench-quality: .venv/ready-dev ## what distillation gives on seven tasks, in hours
	$(BIN)/python -c 'import reasoning_gym' 2>/dev/null || $(BIN)/python -m pip install --quiet --no-build-isolation -e '.[tasks]'
	$(BIN)/python -m benchmarks.quality

bench-report: .venv/ready-dev chromium ## the report with many samples
	$(BIN)/python -m benchmarks.report

# The report's tests need Chromium. Where it cannot be installed they are skipped, and this says so.
chromium:
	@command -v chromium >/dev/null || { \
	  SUDO=$$([ "$$(id -u)" = 0 ] || echo "sudo -n"); \
	  $$SUDO true 2>/dev/null && { $$SUDO apt-get update -qq; $$SUDO apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
	    || echo "chromium is not installed: the tests of the report in it are skipped (apt-get install chromium)"; }

bench-filter: .venv/ready-dev build/peers ## filters against their peers
	PYTHONPATH=build/peers $(BIN)/python -m benchmarks.filter

build/peers:
	$(PIP) --target build/peers.part rensa==0.5.0 datasketch==2.0.0 text-dedup==0.4.0 click-option-group==0.5.9 scipy==1.17.1
	mv build/peers.part $@

setup: .venv/ready ## set up only

.venv/ready: requirements/$(KIND).txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing requirements/$(KIND).txt: some minutes, once"
	$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r requirements/$(KIND).txt || { \
	  echo "If it was torch==…+cpu that pip did not find: make setup TORCH_INDEX=<PyTorch's index of CPU wheels, named on its installation page>"; exit 1; }
	$(PIP) --no-build-isolation -e .
	touch $@

.venv/ready-dev: .venv/ready requirements/dev.txt
	$(PIP) -r requirements/dev.txt
	touch $@

clean: ## remove what was installed, run and cached
	rm -rf .venv runs build *.egg-info .mypy_cache .ruff_cache .pytest_cache
