# `make demo` and `make test` work on a fresh machine: they install everything they need into .venv from requirements.lock.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo recording test test-all test-fast check format lint types imports bench dist docs lock vendor clean

demo: $(READY)
	$(BIN)/likewise demo

# docs/images/terminal.svg, the picture of the README
recording: $(READY)
	$(BIN)/python docs/record.py

# Tests mostly wait for processes to start, so two workers run in parallel. Tests that share a resource (a cluster, a
# container daemon) form a group on one worker; tests/conftest.py sets the order.
# The tests' hundreds of processes import the same modules, whose byte code takes a fifth of their time; it is written
# before they start, because plain MLflow would write it into the bundles that it loads.
JOBS ?= 2
PYTEST := $(BIN)/python -m compileall -q src tests && PYTHONDONTWRITEBYTECODE=1 $(BIN)/pytest -n $(JOBS) --dist loadgroup --no-loadscope-reorder $(PYTEST_ARGS)

# Everything that a change must pass, with every target running for real.
test: $(READY)
	$(PYTEST) -m "not long"

# Additionally the long variants that CONTRIBUTING.md lists, and a model of each flavour.
test-all: $(READY)
	$(BIN)/pip install --quiet --constraint requirements.lock --editable '.[zoo]'
	$(PYTEST) --hypothesis-profile=thorough

test-fast: $(READY)
	$(PYTEST) -m "not slow and not long" tests/unit

check: $(READY) lint types imports test

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell src tests docs architecture bench examples README.md CONTRIBUTING.md CHANGELOG.md

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python -m bench

# The files of a release, in dist/.
dist: $(READY)
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

# The documentation as a website, in build/site; broken links are errors.
docs: $(READY)
	$(BIN)/mkdocs build --strict

# The lock covers every platform and every Python version in pyproject.toml; pip uses it as constraints.
lock: $(READY)
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-emit-package likewise pyproject.toml -o requirements.lock

# The page /docs is Swagger UI, and the charts of the page / are drawn by uPlot. Both are vendored from npm, so that
# browsers need no other host.
SWAGGER_UI := 5.35.0
UPLOT := 1.6.32
ASSETS := src/likewise/server/pages/assets
PACKED := build/vendor

vendor:
	mkdir -p $(PACKED)/uplot
	npm pack --pack-destination $(PACKED) swagger-ui-dist@$(SWAGGER_UI) uplot@$(UPLOT)
	tar -xzf $(PACKED)/swagger-ui-dist-$(SWAGGER_UI).tgz -C $(PACKED)
	cp $(addprefix $(PACKED)/package/,swagger-ui-bundle.js swagger-ui.css LICENSE) $(ASSETS)/docs
	cat $(addprefix $(PACKED)/package/,NOTICE swagger-ui-bundle.js.LICENSE.txt) > $(ASSETS)/docs/NOTICE
	tar -xzf $(PACKED)/uplot-$(UPLOT).tgz -C $(PACKED)/uplot
	cp $(addprefix $(PACKED)/uplot/package/,dist/uPlot.iife.min.js dist/uPlot.min.css LICENSE) $(ASSETS)/page

$(READY): pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { echo "Likewise needs Python 3.11, 3.12 or 3.13 (set PYTHON=/path/to/python)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --progress-bar on --constraint requirements.lock --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist likewise-demo .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis
