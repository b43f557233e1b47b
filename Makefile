# The two commands of the README are `make demo` and `make test`; each makes .venv if missing, installs, runs.
VENV ?= .venv
PYTHON ?= python3
MINUTES ?= 5
OUTPUT ?= distilrank-demo
PYTEST_ARGS ?=
INSTALLED = $(VENV)/.installed

.PHONY: demo test lint test-floor install clean

demo: $(INSTALLED)
	$(VENV)/bin/distilrank demo --minutes $(MINUTES) -o $(OUTPUT)

# A process a core, each on one thread: tiny models gain nothing from more.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto $(PYTEST_ARGS)

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The oldest versions that the code runs on.
test-floor:
	$(MAKE) test VENV=.venv-floor CONSTRAINTS=constraints-floor.txt

install: $(INSTALLED)

CONSTRAINTS ?= constraints.txt
$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	@echo "installing distilrank and its libraries into $(VENV): 1 GB to download, 4 GB where pip takes PyTorch's CUDA build"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --upgrade pip
	@$(VENV)/bin/python -m pip install --quiet -c $(CONSTRAINTS) -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv .venv-floor distilrank-demo runs
