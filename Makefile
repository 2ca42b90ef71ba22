PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: book pdf lint check test reliability bench notebooks reproduce

book: .venv/.book
	$(BIN)/rgnb build

# Printed by Chromium, which has to be installed.
pdf: .venv/.pdf
	$(BIN)/python -c "from rgnb.press import pdf; print('the PDF is at', pdf.build().as_uri())"

# Format, lint and types; `check` and `test` begin with them.
lint: .venv/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# For every change, in two minutes on 2 cores: without the tests that build or run the book, or train for long.
check: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal -m "not slow"

# The whole suite.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

# What the page Reliability shows: the tests of its promises, counted.
reliability: .venv/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal -m promise --counts=results/reliability.json tests

# Against the peers, which it installs; three times over: twenty minutes on 2 cores.
bench: .venv/.bench
	$(BIN)/python benchmarks/bench.py

# The .ipynb pairs of the MyST notebooks, for papermill and Jupyter; one that was changed since is left alone.
notebooks: $(patsubst book/notebooks/%.md,book/ipynb/%.ipynb,$(wildcard book/notebooks/*.md))

book/ipynb/%.ipynb: book/notebooks/%.md | .venv/.book
	@mkdir -p book/ipynb
	$(BIN)/jupytext --quiet --to ipynb --output $@ $<

# Trains everything in the book again, into build/reproduce, or what the notebooks in PAGES show; stop it and call it again to go on.
PAGES =
reproduce: .venv/.book
	RGNB_RESULTS='$(CURDIR)/build/reproduce/results' $(BIN)/rgnb build --into build/reproduce $(PAGES)

.venv/.book: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "rgnb needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) --constraint constraints.txt --editable '.[book]'
	@touch $@

.venv/.pdf: .venv/.book
	$(PIP) --constraint constraints.txt --editable '.[book,pdf]'
	@touch $@

.venv/.test: .venv/.book
	$(PIP) --constraint constraints.txt --editable '.[book,test]'
	@touch $@

# pydtmc asks for an old matplotlib that it does not need here.
.venv/.bench: .venv/.book
	$(PIP) --constraint constraints.txt --editable '.[book,bench]'
	$(PIP) --no-deps pydtmc==8.7.0
	@touch $@
