# Everything runs in .venv, which the first target that needs it makes from requirements.lock, and which is made
# anew when the lock changes. On a machine without make: see CONTRIBUTING.md, "Setting up".

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules
SHELL := /bin/sh

# The interpreter of a new environment: the lock is made for 3.11 and resolves for later ones too.
PYTHON ?= $(shell python3.11 --version >/dev/null 2>&1 && echo python3.11 || echo python3)
# Passed on to the command behind a target, as in: make reports ARGS="vae2013 --preset smoke"
ARGS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input -qq

# The two stamps go by content, not by time: in a fresh clone every file is new. The checkout's own path counts,
# because an environment that was moved with its checkout would go on importing the old one. Comments do not count.
DIGEST = cksum | tr -s ' \t' '-'
LOCKED := .venv/.installed-$(shell { pwd -P; grep -e '==' -e '--hash' requirements.lock; } | $(DIGEST))
READY := .venv/.project-$(shell cat pyproject.toml | $(DIGEST))

.PHONY: help env reports lab test test-all lint bench lock clean

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile
	@echo 'Options go in ARGS, as in: make reports ARGS="vae2013 --preset smoke"'

env: $(READY)  ## make or refresh the environment in .venv, and nothing else

reports: $(READY)  ## run what is missing and write the HTML reports to reports/latest
	@$(BIN)/regen report $(ARGS)

lab: $(READY)  ## open the notebooks in JupyterLab
	@$(BIN)/jupyter-lab $(ARGS) notebooks

# A worker a core and one more, for tests wait at times; four at most: each imports torch. A file's tests stay together,
# for they share what is costly to make.
CORES = $(shell getconf _NPROCESSORS_ONLN || echo 1)
PARALLEL = --numprocesses $(shell expr $(CORES) + 1) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(READY)  ## the tests of every push: 6 minutes on two cores, 14 to 19 on slow ones, the environment made
	@$(BIN)/pytest $(PARALLEL) -m "not slow" --durations=10 $(ARGS)

test-all: $(READY)  ## those and the slow ones
	@$(BIN)/pytest $(PARALLEL) --durations=10 $(ARGS)

lint: $(READY)  ## ruff and mypy, changing nothing
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(READY)  ## this project beside its peers, as ratios
	@$(BIN)/regen bench $(ARGS)

# Versions already in the lock stay unless pyproject.toml rules them out; ARGS=--upgrade takes the newest.
lock: $(READY)  ## remake requirements.lock from pyproject.toml
	@$(PIP) install uv
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra reports --extra extractors \
		--extra dev --custom-compile-command "make lock" $(ARGS) --output-file requirements.lock pyproject.toml

# reports/latest stays: it may hold days of computing.
clean:  ## remove the environment and all caches; keeps reports/latest
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find lib replications notebooks tests \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

# The stamp is the last thing written: an environment whose installation failed or was interrupted has none, and the
# next make starts it from nothing. -qq hides pip's warnings (some indexes cause one a package), never its errors.
$(LOCKED):
	@found=$$("$(PYTHON)" --version 2>&1) || found="no Python under the name $(PYTHON)"; \
	case "$$found" in \
		"Python 3.1"[1-9]* | "Python 3."[2-9][0-9]*) ;; \
		*) echo "regen needs Python 3.11 or newer and found $$found:" \
			"install one and name it, as in: make $(or $(MAKECMDGOALS),env) PYTHON=/path/to/python3.11" >&2; exit 2 ;; \
	esac; \
	echo "Installing the locked packages into .venv with $$found: about 6 GB, about three minutes on a good line." \
		"Only this first time, and when requirements.lock changes."; \
	rm -rf .venv \
		&& "$(PYTHON)" -m venv .venv \
		&& $(PIP) install --require-hashes -r requirements.lock \
		|| { rm -rf .venv; \
			echo "The installation failed for the reason above. Nothing of it is kept; the same command tries again." >&2; \
			exit 1; }
	@touch "$@"

# Without build isolation, so that setuptools too is the locked one.
$(READY): $(LOCKED)
	@rm -f .venv/.project-*
	@$(PIP) install --no-build-isolation --no-deps -e .
	@touch "$@"
