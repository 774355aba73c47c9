# From nothing to a result, and from nothing to a green test suite.
# Needs Python 3.11 or newer with venv and pip; everything else is installed into $(VENV).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: quickstart test test-slow bench bench-kernels lint wheel docs clean

quickstart: $(READY)
	$(BIN)/spikeshot train quickstart --resume

test: $(READY)
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

# Minutes, on a quiet machine: the other libraries come first, then both tables.
bench: bench-kernels
	$(BIN)/python benchmarks/meta_step.py

bench-kernels: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 --editable '.[bench]'
	$(BIN)/python -m pytest benchmarks/test_kernels.py --benchmark-only --benchmark-columns=median,iqr,rounds

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

wheel: $(READY)
	rm -rf build/wheel && $(BIN)/python -m build --wheel --no-isolation --outdir build/wheel

# Needs no torch: the reference is read from the source.
docs: $(VENV)-docs/.ready
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --strict --quiet --site-dir build/site

$(VENV)-docs/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -m pip install --quiet --disable-pip-version-check \
	  $$($(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])')
	touch $@

# The exact torch first: a range would fetch the newest build, and with it several GB.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[sample,events,dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) $(VENV)-docs build dist
