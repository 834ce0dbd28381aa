# make demo   draw street scenes, train small networks of four tasks on them and show what they do, in one strip
#             TASK=pix2pix, segmentation, detection or pose: one of them
# make test   lint, types and tests: what CI runs
# make docs   the site, in build/site; make pages writes the pages that are made from data
# make notebooks   executes notebooks/ and writes them to build/notebooks
# Set PYTHON to choose the interpreter, VENV to choose the environment.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export NO_ALBUMENTATIONS_UPDATE = 1
# Kept also where the environment forbids it: the tests start some hundred processes, which would compile dvsn each.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test test-slow lint types format docs pages notebooks clean

demo: $(INSTALLED)
	@$(BIN)/python experiments/demo/run.py $(TASK)

# Types are checked beside the tests: with a cold cache they keep a core busy for most of a minute. Each of two workers has
# a core: threads of NumPy's libraries and of started processes would wait for each other.
test test-slow: export OMP_NUM_THREADS = 1
test: $(INSTALLED) lint
	@mkdir -p build
	@$(BIN)/mypy > build/types.log 2>&1 & \
	  $(BIN)/python -m pytest -n 2 --dist worksteal; tests=$$?; \
	  wait $$!; types=$$?; cat build/types.log; exit $$((tests | types))

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow -n 2 --dist worksteal

docs: $(INSTALLED)
	@$(BIN)/python -c 'import zensical, mkdocstrings_handlers.python' 2> /dev/null || \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check '.[docs]'
	$(BIN)/python docs/site.py build
	@printf '\nThe site    build/site/index.html\n'

notebooks: $(INSTALLED)
	@$(BIN)/python -c 'import jupytext, ipykernel, ipywidgets, nbconvert, av' 2> /dev/null || \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check '.[notebooks,video]'
	mkdir -p build/notebooks
	cd build/notebooks && for name in ../../notebooks/*.py; do \
	  ../../$(BIN)/python -m jupytext --to ipynb --execute --output "$$(basename $$name .py).ipynb" $$name || exit 1; done

pages: $(INSTALLED)
	$(BIN)/python docs/site.py pages

lint: $(INSTALLED)
	$(BIN)/ruff check dvsn tests experiments docs
	$(BIN)/ruff format --check dvsn tests experiments docs

types: $(INSTALLED)
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix dvsn tests experiments docs
	$(BIN)/ruff format dvsn tests experiments docs

# uv installs in a fraction of pip's time; where it cannot be used, pip does the same work. pip compiles bytecode
# as it installs, uv only when asked: without it every start of a training compiles its imports anew.
$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "error: dvsn needs Python 3.11 to 3.13; choose one with PYTHON=python3.12"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo 'Installing dvsn and what it needs into $(VENV)'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv && \
	  $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable '.[test]' || \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --compile --editable '.[test]'
	touch $@

clean:
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache
