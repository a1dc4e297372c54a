# make setup | lint | test | test-slow | test-devices | demo | bench | pages | lock
.PHONY: setup lint test test-slow test-devices demo bench pages lock clean
SHELL := /bin/bash
unexport PYTHONDONTWRITEBYTECODE

# The newest Python of 3.13, 3.12, 3.11 that really starts (a pyenv shim may exist and refuse).
define FIND_PYTHON
for p in python3.13 $$HOME/.pyenv/versions/3.13*/bin/python python3.12 $$HOME/.pyenv/versions/3.12*/bin/python \
         python3.11 $$HOME/.pyenv/versions/3.11*/bin/python python3; do \
  if "$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; then echo "$$p"; break; fi; \
done
endef
PYTHON ?= $(shell $(FIND_PYTHON))
VENV ?= .venv
RUN := $(VENV)/bin/python

setup: $(VENV)/.installed

$(VENV)/.installed: .ci/requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "phdme_jax needs Python 3.11, 3.12 or 3.13, and none was found; install one or set PYTHON=..."; exit 2; }
	"$(PYTHON)" -m venv --clear $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r .ci/requirements.lock
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mypy

# two workers, a file of tests at a time: most of the time goes into compiling, one core each
test: setup
	$(RUN) -m pytest -n 2 --dist loadfile

test-slow: setup
	$(RUN) -m pytest -n 2 --dist loadfile -m "slow or not slow"

test-devices: setup
	$(RUN) -m pytest tests/training -k devices

demo: setup
	$(RUN) -m experiments.vibrating_string --size demo --methods phdme,gp_rollout,diffusion --workdir runs/demo

bench: setup
	$(RUN) -m benchmarks.run

# tables and numbers of the README and of all results pages, from the rows
pages: setup
	$(RUN) -m experiments.report --pages

lock: setup
	$(RUN) -m pip install --quiet uv
	$(RUN) -m uv pip compile pyproject.toml --universal --python-version 3.11 --group dev --no-header --no-annotate -o .ci/requirements.lock

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache
