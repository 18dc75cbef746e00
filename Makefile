# Two commands for a newcomer: `make demo` and `make test`. Nothing else prepared than Python and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo dashboard pictures test quick proofs test-python test-lowest test-newest lint lint-pages types reference docs docs-serve kit bench instructions drain chaos fuzz guests publishable published clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

# Debian splits venv's pip out of python3: say so instead of failing in its middle.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.13"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.demo: $(VENV)/bin/python setup.cfg pyproject.toml
	@echo "installing… (half a minute, the first time only)"
	@$(BIN)/python -m pip install -qq --editable '.'
	@touch $@

$(VENV)/.test: $(VENV)/bin/python setup.cfg pyproject.toml
	@$(BIN)/python -m pip install -qq --editable '.[test,dev,docs]'
	@touch $@ $(VENV)/.demo

DEMO = $(BIN)/python -m demo_app $(if $(PORT),--port=$(PORT))

demo: $(VENV)/.demo ## the shop on 127.0.0.1:5000 and AdRoll's sandbox on 127.0.0.1:5001; PORT=8000: there
	@exec $(DEMO)

dashboard: $(VENV)/.demo ## the same shop with a year behind it: 127.0.0.1:5000/adroll-dashboard/
	@rm -rf build/dashboard
	@exec $(DEMO) --past --instance build/dashboard

# Each file in one process, two more of them than there are cores: most wait for a socket, a clock
# or a disk. In the order that tests/conftest.py gives, not by the number of tests.
SIDE_BY_SIDE := --numprocesses=$(shell expr 2 + $$(nproc 2>/dev/null || echo 2)) --dist=loadfile --no-loadscope-reorder

# The browser tests take axe from npm's packages; where there is no npm, they say so.
test: $(VENV)/.test $(if $(shell command -v npm),docs/node_modules/.there) ## all but the long proofs, and of the browsers' tests a part of each subject
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not slow" $(ARGS)

# A process for each core: of these tests hardly any waits.
quick: $(VENV)/.test ## unit tests and the outbox on SQLite, under a minute
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) --numprocesses=auto -q -m quick $(ARGS)

proofs: $(VENV)/.test ## the long proofs: kills, every server, Celery, a backlog, every browser
	@$(BIN)/python -m pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder -m slow --ignore=tests/guests $(ARGS)

# Without browsers, brokers and real servers, which do not differ by version, and what is counted.
BY_VERSION := $(SIDE_BY_SIDE) -m "not slow and not browser" tests/visitor tests/page tests/events tests/outbox \
  tests/delivery tests/app tests/cli tests/sandbox tests/security \
  --ignore=tests/security/test_fuzz.py --ignore=tests/outbox/test_servers.py --ignore=tests/page/test_cost.py

test-python: $(VENV)/.test ## unit and integration tests alone: make test-python PYTHON=python3.12 VENV=.venv312
	@$(BIN)/python -m pytest $(BY_VERSION) $(ARGS)

test-lowest: ## the same with the lowest versions that setup.cfg allows
	@$(MAKE) --no-print-directory VENV=.venv-lowest .venv-lowest/.lowest
	@.venv-lowest/bin/python -m pytest $(BY_VERSION) $(ARGS)

.venv-lowest/.lowest: .venv-lowest/bin/python setup.cfg tests/versions/lowest.txt
	@.venv-lowest/bin/python -m pip install -qq --editable '.[test]' --constraint tests/versions/lowest.txt
	@touch $@

# NEWEST may name sources as well: make test-newest NEWEST="../flask ../werkzeug ../click"
NEWEST ?= Flask Werkzeug click Jinja2 MarkupSafe itsdangerous blinker SQLAlchemy msgspec requests urllib3

test-newest: ## the same with the newest versions, pre-releases included
	@$(MAKE) --no-print-directory VENV=.venv-newest .venv-newest/.newest
	@.venv-newest/bin/python -m pip install -qq --pre --upgrade $(NEWEST)
	@.venv-newest/bin/python -m pytest $(BY_VERSION) $(ARGS)

.venv-newest/.newest: .venv-newest/bin/python setup.cfg
	@.venv-newest/bin/python -m pip install -qq --upgrade --editable '.[test]'
	@touch $@

lint: $(VENV)/.test ## ruff, mypy, and whether the public types are complete
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(MAKE) --no-print-directory lint-pages types

# The pages' own code, block by block: names that a page takes as given (app, order) are unknown there.
PAGES := docs/tutorial docs/how-to docs/reference docs/explanation README.md adroll_flask/sandbox/README.md
DOCCMD = @$(BIN)/doccmd --language python --no-write-to-file --document-workers 2 --command

lint-pages: $(VENV)/.test
	$(DOCCMD) "$(BIN)/ruff check --quiet --no-cache --select E,F,B,UP,SIM,PT --ignore E402,E501,F811,F821,F841" $(PAGES)
	$(DOCCMD) "$(BIN)/mypy --no-error-summary --follow-imports silent --allow-untyped-defs --allow-untyped-calls --allow-subclassing-any --disable-error-code name-defined --disable-error-code has-type --disable-error-code import-not-found --disable-error-code import-untyped --disable-error-code method-assign" $(PAGES)

types: $(VENV)/.test
# pyright reads an installed package, not an editable one; and it does not find the bases of our
# classes (msgspec's) unless they stand beside it.
	@rm -rf build && $(BIN)/python -m pip install -qq --no-deps --target build/types . msgspec
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 PYTHONPATH=build/types $(BIN)/pyright --pythonpath $(BIN)/python \
	  --verifytypes adroll_flask --ignoreexternal >build/types.txt \
	  || { grep -B 3 -A 1 'error:' build/types.txt; exit 1; }

$(VENV)/.docs: $(VENV)/bin/python setup.cfg pyproject.toml
	@$(BIN)/python -m pip install -qq --editable '.[docs]'
	@touch $@

# Mermaid draws the pictures in the reader's browser, from our own pages.
docs/node_modules/.there: docs/package-lock.json
	@cd docs && npm ci --silent --ignore-scripts && touch node_modules/.there

reference: $(VENV)/.test ## what docs/reference/ takes from the code, written into its pages anew
	@$(BIN)/python docs/write_reference.py

docs: $(VENV)/.docs docs/node_modules/.there ## the site, into docs/_build/html (needs npm)
	@$(BIN)/python -m sphinx -W -n -E --keep-going -q -b html -d docs/_build/doctrees docs docs/_build/html
	@echo docs/_build/html/index.html

pictures: $(VENV)/.test docs/node_modules/.there ## the dashboard's pictures for the site, taken anew in Chromium
	@PICTURES=1 $(BIN)/python -m pytest -q tests/browser/test_dashboard.py -k pictures

docs-serve: docs ## the site on http://127.0.0.1:8010/, as it is now
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory docs/_build/html 8010

guests: $(VENV)/.test ## Flask's, Flask-Login's, Flask-WTF's, Starlette's and FastAPI's own suites, and a django-oscar shop
	@$(BIN)/python -m pytest tests/guests $(ARGS)

kit: ## build the kit again from its sources (needs node and npm)
	@cd static && npm ci --silent --ignore-scripts && npm run --silent build

drain: $(VENV)/.test ## 200,000 events on PostgreSQL and MariaDB, with kills of workers and servers
	@$(BIN)/python -m benchmarks.drain --events 200000

chaos: $(VENV)/.test ## 500 kills at random moments, and what is left of the orders
	@$(BIN)/python -m tests.support.chaos --kills 500

CASES ?= 10000000
fuzz: $(VENV)/.test ## ten million cases at every way in (about three hours); CASES=100000: some minutes
	@FUZZ_CASES=$(CASES) $(BIN)/python -m pytest -q --numprocesses=auto --dist=load tests/security/test_fuzz.py $(ARGS)

bench: $(VENV)/.test ## beside PostHog, Segment and Snowplow: fourteen minutes; ARGS=--short: two
	@$(BIN)/python -m pip install -qq -r benchmarks/requirements.txt
	@$(BIN)/python -m benchmarks.side_by_side $(ARGS)

instructions: $(VENV)/.test ## what a page and an order cost, counted by valgrind; ARGS=--short: without the peers
	@$(BIN)/python -m pip install -qq -r benchmarks/requirements.txt
	@$(BIN)/python -m benchmarks.instructions $(ARGS)

publishable: ## whether all that publishing needs is filled in
	@! grep -n '\.invalid["/]' pyproject.toml \
	  || { echo "Fill in [tool.publication] of pyproject.toml: where the project lives, and who reads what is reported"; exit 1; }
	@grep -q '^DOCS_ARE_PUBLISHED: bool = True' adroll_flask/_version.py \
	  || { echo "DOCS_ARE_PUBLISHED in adroll_flask/_version.py is not True: the messages' addresses have to answer"; exit 1; }

published: publishable ## once, after the first upload to PyPI: README says `pip install adroll-flask`
	@sed -i -e 's|^\$$ pip install path/to/clone$$|$$ pip install adroll-flask|' \
	  -e 's|^It is not on PyPI yet: [^.]*\. ||' README.md

clean: ## remove what was built
	rm -rf $(VENV) .venv-lowest .venv-newest docs/_build docs/node_modules build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
