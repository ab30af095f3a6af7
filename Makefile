# make quickstart   set up and run the main job
# make test         set up and run the tests
# make check        format, lint, types
# make bench-generate, bench-train, bench-filter, bench-report   the bars of each, as tables
SHELL := /bin/bash
PYTHON ?= python3
TORCH_INDEX ?=
BIN := .venv/bin
KIND := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps

.PHONY: quickstart test check setup clean chromium bench-generate bench-train bench-filter bench-report

quickstart: .venv/ready
	$(BIN)/pipeline run configs/quickstart.yaml

# Files of tests are shared out among the cores; each process computes with one thread, since two that wait for each other's cores take far longer.
test: .venv/ready-dev chromium
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

check: .venv/ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench-generate bench-train: bench-%: .venv/ready-dev
	$(BIN)/python -m benchmarks.$*

bench-report: .venv/ready-dev chromium
	$(BIN)/python -m benchmarks.report

# The tests of the report need it. Where it cannot be installed they are skipped, and this says so.
chromium:
	@command -v chromium >/dev/null || { \
	  SUDO=$$([ "$$(id -u)" = 0 ] || echo "sudo -n"); \
	  $$SUDO true 2>/dev/null && { $$SUDO apt-get update -qq; $$SUDO apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
	    || echo "chromium is not installed: the tests of the report in it are skipped (apt-get install chromium)"; }

bench-filter: .venv/ready-dev build/peers
	PYTHONPATH=build/peers $(BIN)/python -m benchmarks.filter

build/peers:
	$(PIP) --target build/peers.part rensa==0.5.0 datasketch==2.0.0 text-dedup==0.4.0 click-option-group==0.5.9 scipy==1.17.1
	mv build/peers.part $@

setup: .venv/ready

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

clean:
	rm -rf .venv runs build *.egg-info .mypy_cache .ruff_cache .pytest_cache
