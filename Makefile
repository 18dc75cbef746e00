# Two commands for a newcomer: `make demo` and `make test`. Nothing else prepared than Python and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint kit bench drain chaos fuzz guests clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

# Debian splits venv's pip out of python3: say so instead of failing in its middle.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.13"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.demo: $(VENV)/bin/python setup.cfg pyproject.toml
	@$(BIN)/python -m pip install -qq --editable '.'
	@touch $@

$(VENV)/.test: $(VENV)/bin/python setup.cfg pyproject.toml
	@$(BIN)/python -m pip install -qq --editable '.[test,dev]'
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo ## the shop on 127.0.0.1:5000 and AdRoll's sandbox on 127.0.0.1:5001
	@exec $(BIN)/python -m demo_app

test: $(VENV)/.test ## the whole suite
	@$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.test ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

guests: $(VENV)/.test ## Flask's, Flask-Login's and Flask-WTF's own suites, with AdRoll on every app
	@$(BIN)/python -m pytest tests/guests $(ARGS)

kit: ## build the kit again from its sources (needs node and npm)
	@cd static && npm ci --silent --ignore-scripts && npm run --silent build

drain: $(VENV)/.test ## 200,000 events on PostgreSQL and MariaDB, with kills of workers and servers
	@$(BIN)/python benchmarks/drain.py --events 200000

chaos: $(VENV)/.test ## 500 kills at random moments, and what is left of the orders
	@$(BIN)/python tests/chaos.py --kills 500

fuzz: $(VENV)/.test ## ten million cases at every way in (about three hours)
	@FUZZ_CASES=10000000 $(BIN)/python -m pytest -q tests/security/test_fuzz.py

bench: $(VENV)/.test ## beside PostHog, Segment and Snowplow: six minutes; ARGS=--short: two
	@$(BIN)/python -m pip install -qq -r benchmarks/requirements.txt
	@$(BIN)/python benchmarks/side_by_side.py $(ARGS)

clean: ## remove what was built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
