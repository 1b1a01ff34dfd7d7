# Everything that is built stays inside the checkout: .venv, node_modules, the console's app.
# What is done already is not done again: each step leaves a stamp or its product behind.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

BIN := .venv/bin
# Behind the proxy of a company, its certificate is in the system's store.
NPM := PATH="$(CURDIR)/$(BIN):$$PATH" NODE_OPTIONS=--use-system-ca npm
NPM_CI = $(NPM) ci --ignore-scripts --no-fund --no-audit --loglevel=error
APP := src/shopfloor/console/app/index.html
PYRIGHT := tools/pyright/node_modules/.package-lock.json
WEB_MODULES := $(if $(wildcard web/package-lock.json),web/node_modules/.package-lock.json)
WEB_SOURCES := $(shell find web -name node_modules -prune -o -type f -print 2>/dev/null)
PEERS := $(patsubst %/package-lock.json,%/node_modules/.package-lock.json,$(wildcard tests/peers/*/package-lock.json))
PYTHON_PEERS := $(patsubst %/requirements.txt,%/.venv/.installed,$(wildcard tests/peers/*/requirements.txt))
# Without Maven and a compiler there is no Java peer, and the tests that want one say so.
JAVA_PEERS := $(if $(and $(shell command -v mvn),$(shell command -v javac)),$(patsubst %/pom.xml,%/target/.built,$(wildcard tests/peers/*/pom.xml)))
PYTHON_FILES := src tests tools

.PHONY: help demo test soak check bench web docs lock clean lint types pyright floors fresh-docs web-check install

help: ## What can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 10

demo: .venv/.run $(APP) ## A simulated plant with its console on http://127.0.0.1:8080 (ARGS="--for 30s")
	@$(BIN)/shopfloor demo $(ARGS)

test: .venv/.test $(APP) $(PEERS) $(PYTHON_PEERS) $(JAVA_PEERS) ## Install what the tests need and pass them (ARGS="-k journal" for some)
	@tools/debian.sh mosquitto=mosquitto mosquitto_pub=mosquitto-clients mbpoll=mbpoll chromium=chromium systemd-analyze=systemd pg_createcluster=postgresql mariadbd=mariadb-server influxd=influxdb victoria-metrics=victoria-metrics strace=strace libltdl.so.7=libltdl7 libgssapi_krb5.so.2=libgssapi-krb5-2
	@tools/tests.sh $(ARGS)

soak: .venv/.test ## Kill it while it delivers to everything, and count (LIVES=200 SEED=7 MINUTES=60 ONLY="mysql files")
	@SHOPFLOOR_SOAK_LIVES=$(or $(LIVES),200) SHOPFLOOR_SOAK_SEED=$(or $(SEED),$$RANDOM) SHOPFLOOR_SOAK_MINUTES=$(or $(MINUTES),60) \
	SHOPFLOOR_SOAK_ONLY="$(ONLY)" nice -n 10 $(BIN)/python -m pytest -n0 -q --tb=short -rN tests/soak -k everywhere

check: .venv/.check .venv/.test $(PYRIGHT) $(WEB_MODULES) ## Lint, types, the order of the rooms, generated pages
	@$(MAKE) --no-print-directory -j4 -k -O lint types pyright floors fresh-docs web-check

bench: .venv/.test $(APP) $(PEERS) ## Measure everything (some minutes); BENCH=journal for one
	@$(BIN)/shopfloor bench $(or $(BENCH),all) $(ARGS)

web: $(APP) ## Build the console's web app

docs: .venv/.test ## Write the generated pages anew
	@$(BIN)/python tools/docs.py

lock: .venv/.run ## Take the newest versions of all Python packages into tools/constraints.txt
	@tools/venv.sh lock
	@tools/venv.sh install web test check && touch .venv/.run .venv/.test .venv/.check

clean: ## Take away everything that was built or installed, not what was recorded
	@rm -rf .venv dist build $(dir $(APP)) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@rm -rf web/node_modules web/dist tools/pyright/node_modules tests/peers/*/node_modules
	@rm -rf tests/peers/*/.venv tests/peers/*/target
	@find $(PYTHON_FILES) -name __pycache__ -type d -prune -exec rm -rf {} +

install: .venv/.run $(APP)

# --- the parts of `make check`
lint:
	@$(BIN)/ruff check -q $(PYTHON_FILES)
	@$(BIN)/ruff format -q --check $(PYTHON_FILES) || { echo 'not formatted: run $(BIN)/ruff format $(PYTHON_FILES)'; exit 1; }

types:
	@$(BIN)/mypy --no-error-summary

pyright:
	@$(BIN)/node tools/pyright/node_modules/pyright/index.js | grep -v '^0 errors' || [ "$${PIPESTATUS[0]}" -eq 0 ]

floors:
	@$(BIN)/python -m pytest -q --no-header tests/test_floors.py

fresh-docs:
	@$(BIN)/python tools/docs.py --check

web-check: $(WEB_MODULES)
	@$(if $(WEB_MODULES),cd web && $(NPM) run --silent check,true)

# --- what they stand on
.venv/bin/python:
	@tools/venv.sh create

# The groups add to what is installed; a changed pyproject.toml installs anew what changed.
.venv/.run: pyproject.toml tools/constraints.txt | .venv/bin/python
	@tools/venv.sh install web && touch $@

.venv/.test: .venv/.run
	@tools/venv.sh install web test && touch $@

.venv/.check: .venv/.test
	@tools/venv.sh install web test check && touch $@

# npm writes this file at the end of an installation.
%/node_modules/.package-lock.json: %/package-lock.json | .venv/.run
	@cd $* && $(NPM_CI) >/dev/null && touch node_modules/.package-lock.json

%/.venv/.installed: %/requirements.txt | .venv/.run
	@tools/venv.sh peer $* && touch $@

tests/peers/tahu/target/.built: $(shell find tests/peers/tahu/src -type f 2>/dev/null)
tests/peers/mongo/target/.built: $(shell find tests/peers/mongo/src -type f 2>/dev/null)
tests/peers/kafka/target/.built: $(shell find tests/peers/kafka/src -type f 2>/dev/null)
tests/peers/registry/target/.built: $(shell find tests/peers/registry/src -type f 2>/dev/null)
%/target/.built: %/pom.xml
	@cd $* && mvn -q -B process-classes 2>&1 | sed 's/\x1b\[[0-9;]*m//g' && touch target/.built

$(APP): $(WEB_MODULES) $(WEB_SOURCES) | .venv/.run
	@echo "building the console" >&2
	@$(if $(WEB_MODULES),(cd web && $(NPM) run --silent build -- --logLevel warn),mkdir -p $(@D)) && touch $@
