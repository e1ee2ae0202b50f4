# Every command of the project. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help run test services services-stop services-status faults faults-mutants faults-chat faults-chat-mutants bench bench-outbox bench-chat bench-api check lint types borders fix messages schema fuzz lock clean

BIN := .venv/bin
SERVICES = $(if $(wildcard $(BIN)/python),$(BIN)/python,python3) scripts/services.py
UV ?= uv

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Set up and start everything; Ctrl-C stops it
	@scripts/setup.sh
	@$(BIN)/python scripts/run.py

test: ## Run all tests: embedded, then on real MariaDB, Redis and Kafka
	@scripts/setup.sh --dev
	@scripts/test.sh

services: ## Start MariaDB, Redis and Kafka for hand work
	@$(SERVICES) start
	@$(SERVICES) env

services-stop: ## Stop the services that were started here
	@$(SERVICES) stop

services-status: ## Say which services run and where
	@$(SERVICES) status || true

faults: ## Let faults overlap on own servers: RUNS=n SEED=s LANES=l; RUNS=0 SECONDS=1800 REAL=1 soaks
	@scripts/setup.sh --dev
	@$(BIN)/python -m tests.faults --runs $(or $(RUNS),20) --seed $(or $(SEED),1) \
	  --seconds $(or $(SECONDS),0) --lanes $(or $(LANES),1) $(if $(REAL),--real)

faults-mutants: ## Break the product on purpose and see that the fault suite notices
	@scripts/setup.sh --dev
	@$(BIN)/python -m tests.faults --mutants all --runs $(or $(RUNS),60) --seed $(or $(SEED),1)

faults-chat: ## Let faults overlap while students chat: RUNS=n SEED=s LANES=l; RUNS=0 SECONDS=1800 REAL=1 soaks
	@scripts/setup.sh --dev
	@$(BIN)/python -m tests.faults_chat --runs $(or $(RUNS),20) --seed $(or $(SEED),1) \
	  --seconds $(or $(SECONDS),0) --lanes $(or $(LANES),1) $(if $(REAL),--real)

faults-chat-mutants: ## Break the chat on purpose and see that its fault suite notices
	@scripts/setup.sh --dev
	@$(BIN)/python -m tests.faults_chat --mutants all --runs $(or $(RUNS),60) --seed $(or $(SEED),1)

bench: ## Measure the added latency and the outbox beside the raw floor
	@scripts/setup.sh --dev
	@$(BIN)/python -m bench

bench-outbox: ## Measure the outbox, the raw floor and peers; LONG=1 adds a million pending rows
	@scripts/setup.sh --dev
	@$(BIN)/python -m bench outbox peers $(if $(LONG),long)

bench-chat: ## Measure chat runs beside raw comparisons, 8 minutes; QUICK=1 only sees that it works
	@scripts/setup.sh --dev
	@$(BIN)/python -m bench chat $(if $(QUICK),--quick)

bench-api: ## Measure the task routes beside bare Django and raw SQL, 3 minutes; QUICK=1 only sees that it works
	@scripts/setup.sh --dev
	@$(BIN)/python -m bench api $(if $(QUICK),--quick)

check: lint types borders ## Lint, types and borders

lint: ## Check style and format
	@scripts/setup.sh --dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: ## Check types
	@scripts/setup.sh --dev
	@$(BIN)/mypy .

borders: ## Check the borders between and inside the apps
	@scripts/setup.sh --dev
	@$(BIN)/lint-imports

fix: ## Mend what ruff can mend
	@scripts/setup.sh --dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

messages: ## Collect sentences to translate and compile the translations; needs gettext
	@$(BIN)/python manage.py makemessages --locale zh_Hans --no-location --no-wrap --no-obsolete -i var -i tests
	@$(BIN)/python manage.py compilemessages --locale zh_Hans --ignore .venv --ignore var

fuzz: ## Ask the started server everything its schema allows, and more: SECONDS=n SEED=s
	@scripts/setup.sh --dev
	@$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),600) --seed $(or $(SEED),1)

schema: ## Write docs/openapi.yaml anew from what the routes say of themselves
	@scripts/setup.sh --dev
	@$(BIN)/python manage.py spectacular --validate --fail-on-warn --file docs/openapi.yaml

lock: ## Pin requirements*.in into requirements*.txt; needs uv
	@for name in requirements requirements-dev; do \
	  $(UV) pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	    --custom-compile-command "make lock" $$name.in --output-file $$name.txt || exit 1; \
	done

clean: ## Remove caches; data in var/ and the environment stay
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	@find . -name __pycache__ -not -path './.venv/*' -not -path './var/*' -prune -exec rm -rf {} +
