# A fresh clone needs two commands: `make demo` and `make test`. Both make .venv here and install what they need.
#
#   PYTHON=python3.12     the interpreter (found by itself: 3.11 or 3.12)
#   TORCH=auto            a torch that PYTHON already has is used when it sees a GPU, else the pinned one is installed
#   TORCH=existing        always use the torch that PYTHON already has
#   TORCH=2.13.0          install this version instead
#   WORKERS=2             test processes, one torch thread each
#
# The pinned torch is the CPU or the CUDA build (5 GB), whichever pip's configured index has; both work.
# After a change of PYTHON or TORCH run `make clean` first.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test lint types unit vbench clean

PY_OK := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))
PYTHON ?= $(shell for p in python3.11 python3.12 python3 python /usr/bin/python3.11 /usr/bin/python3.12; do \
	$$p -c '$(PY_OK)' >/dev/null 2>&1 && { echo $$p; break; }; done)
TORCH ?= auto
WORKERS ?= 2

BIN := .venv/bin
PINS := .venv/constraints.txt
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1

help:  ## this text
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/'

demo: .venv/.demo-$(TORCH)  ## generate, score and compare a few short videos on this machine
	$(BIN)/irope demo

test: lint types unit  ## everything that has to pass: lint, types, tests

lint: .venv/.test-$(TORCH)  ## ruff
	$(BIN)/ruff check .

types: .venv/.test-$(TORCH)  ## mypy
	$(BIN)/mypy

unit: .venv/.test-$(TORCH)  ## pytest
	$(BIN)/pytest -n $(WORKERS)

vbench: .venv/.test-$(TORCH)  ## install VBench beside the rest, without its old pins; irope vbench weights says what it needs
	$(BIN)/irope vbench install

clean:  ## remove .venv (results are kept)
	rm -rf .venv

$(PINS): constraints.txt
	@test -n '$(PYTHON)' || { echo 'No Python 3.11 or 3.12 with venv and pip was found; run: make PYTHON=/path/to/python3.11 ...' >&2; exit 1; }
	@$(PYTHON) -c '$(PY_OK)' || { echo '$(PYTHON) does not start, or is not Python 3.11 or 3.12 with venv; run: make PYTHON=/path/to/python3.11 ...' >&2; exit 1; }
	@mode='$(TORCH)'; \
	if [ "$$mode" = auto ]; then \
	  mode=pinned; \
	  $(PYTHON) -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' >/dev/null 2>&1 && mode=existing; \
	fi; \
	case "$$mode" in \
	  pinned)   site=; pins=$$(cat constraints.txt);; \
	  existing) site=--system-site-packages; pins=$$(grep -vE '^torch(vision)?==' constraints.txt); \
	            $(PYTHON) -c 'import torch' || { echo 'TORCH=existing, but $(PYTHON) has no torch; run: make PYTHON=... or leave TORCH out' >&2; exit 1; };; \
	  *)        site=; pins=$$(grep -vE '^torch(vision)?==' constraints.txt; echo "torch==$$mode");; \
	esac; \
	echo "irope: .venv with $$($(PYTHON) --version), torch: $$mode"; \
	{ [ -x $(BIN)/python ] && [ -z "$$site" ]; } || $(PYTHON) -m venv $$site .venv; \
	printf '%s\n' "$$pins" > $@

# Installing again is quick, so each stamp simply depends on the two files that say what to install.
.venv/.demo-$(TORCH): pyproject.toml $(PINS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(PINS) -e .
	@touch $@

.venv/.test-$(TORCH): pyproject.toml $(PINS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(PINS) -e '.[dev]'
	@touch $@ .venv/.demo-$(TORCH)
