# The only commands one must remember. Each sets up .venv first when it is missing or stale.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
BIN := $(VENV)/bin
CONFIG ?= configs/demo.yaml
TESTS ?= # of pyproject.toml
# compiled files are kept: the tests start Python many times
OFFLINE := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 WANDB_MODE=offline PYTHONDONTWRITEBYTECODE=

.DEFAULT_GOAL := help
.PHONY: help demo test coverage check docs test-slow test-gpu bench bench-gpu clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

$(STAMP): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)  ## unlearn three requests on the embedded benchmark, offline, in minutes
	$(BIN)/python train.py run --config $(CONFIG)

test: $(STAMP)  ## all fast tests, offline
	@start=$$(date +%s); $(OFFLINE) $(BIN)/python -m pytest $(TESTS) -n 2 --dist worksteal --durations=10 $(COVER); code=$$?; echo "make $@: $$(( $$(date +%s) - start )) s"; exit $$code

coverage: COVER = --cov --cov-report=term:skip-covered --cov-fail-under=90
coverage: test  ## the same with coverage, at least 90 %; much slower before Python 3.12

check: $(STAMP)  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)  ## the documentation, into site/index.html; a dead link or a warning fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

test-slow: $(STAMP)  ## the tests that take minutes
	$(OFFLINE) $(BIN)/python -m pytest $(TESTS) -m slow --timeout=3600

test-gpu: $(STAMP)  ## the tests that need a CUDA device
	$(BIN)/python -m pytest $(TESTS) -m gpu --timeout=3600

bench: $(STAMP)  ## kernel benchmark: verify, then time all sides in one run
	$(BIN)/python -m benchmarks.kernels --out kernels/results

bench-gpu: $(STAMP)  ## on a CUDA device: tests, benchmark, block sizes, tables of the documentation; goes on where it was
	$(BIN)/python -m benchmarks.kernels --everything --resume kernels/results $(if $(MINUTES),--minutes $(MINUTES))
	mkdir -p kernels/o3_kernels/tuned && cp kernels/results/tuned/*.json kernels/o3_kernels/tuned/
	$(BIN)/python -m benchmarks.kernels.readme

clean:  ## remove what the commands above made, except runs/
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage *.egg-info
