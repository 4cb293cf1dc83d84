PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
AUDIT := .venv-audit
# A version that the database cannot tell anything of fails it, too. Findings are answered in SECURITY.md.
AUDIT_OPTIONS ?= --strict --vulnerability-service osv
# Four files at a time, because half of their time they wait, in the order that tests/conftest.py gives them.
SIDE_BY_SIDE := -n 4 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-lowest chaos audit lint format bench bench-quick clean

demo: $(VENV)/installed
	$(BIN)/osml-tasks demo

test: $(VENV)/installed-dev
	$(BIN)/pytest $(SIDE_BY_SIDE)

chaos: $(VENV)/installed-dev
	$(BIN)/python -m tests.chaos --write docs/reliability.md

# With the lowest versions that pyproject.toml allows, in an environment of its own.
test-lowest: $(LOWEST)/installed
	$(LOWEST)/bin/pytest $(SIDE_BY_SIDE) tests/unit tests/integration/test_main_job.py

# What is known against the versions in the images, and those that an installation of today gets. Needs a network.
audit: $(AUDIT)/installed
	$(AUDIT)/bin/pip-audit $(AUDIT_OPTIONS) --no-deps --disable-pip \
		--requirement compose/requirements.txt --requirement compose/requirements-local.txt
	$(AUDIT)/bin/uv pip compile --quiet --all-extras pyproject.toml --output-file $(AUDIT)/today.txt
	$(AUDIT)/bin/pip-audit $(AUDIT_OPTIONS) --no-deps --disable-pip --requirement $(AUDIT)/today.txt

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/installed-bench
	$(BIN)/python -m benchmarks --write docs

bench-quick: $(VENV)/installed-bench
	$(BIN)/python -m benchmarks --quick

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[local]'
	touch $@

$(VENV)/installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(VENV)/installed $@

$(VENV)/installed-bench: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	touch $(VENV)/installed $@

$(LOWEST)/installed: pyproject.toml
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --editable '.[dev]'
	touch $@

$(AUDIT)/installed:
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit uv
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) $(AUDIT) build dist
