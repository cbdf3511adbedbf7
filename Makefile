# Everything that a new machine needs beyond Python 3.11, pip, make and git is installed by these targets.
PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
RUN := $(UV) run --frozen --no-sync
ARGS ?=
# The emulator takes long: what is about permissions, sessions, documents, repeats and crashes; `make soak` runs the rest.
ON_FIRESTORE := $(patsubst %,tests/doors/test_%.py,access access_states rights policies casefiles_api sessions_api \
	documents_api operations_api events_api idempotency limits logout browser_sessions) tests/journeys/test_crash.py

.DEFAULT_GOAL := help
.PHONY: help demo serve test stores soak check lint types imports docs format bench setup

help: ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1|/' | awk -F'|' '{printf "  make %-9s %s\n", $$1, $$2}'

demo: setup ## Show the main job on a fresh embedded store, then serve it (ARGS=--exit ends instead)
	@$(RUN) casekeeper demo $(ARGS)

serve: setup ## Start a server on ./.casekeeper (ARGS="--port 9000 --data DIR")
	@$(RUN) casekeeper serve $(ARGS)

test: setup ## Set up and run all tests, with coverage
	@rm -f .coverage .coverage.*
	$(RUN) pytest -n auto --dist worksteal --cov --cov-report= $(ARGS)
	@$(RUN) coverage report --skip-covered --fail-under=85 > .report-coverage || (cat .report-coverage; exit 1)
	@tail -n 1 .report-coverage
	@$(RUN) coverage report --fail-under=100 \
		--include='src/casekeeper/casefiles/*,src/casekeeper/identity/*,src/casekeeper/execution/corridor.py,src/casekeeper/execution/life.py,src/casekeeper/operations/admitting.py'

stores: setup ## Run the doors and the crashes on PostgreSQL, the most of them on Firestore
	TEST_STORE=postgresql $(RUN) pytest -n auto --dist worksteal tests/doors tests/journeys/test_crash.py $(ARGS)
	TEST_STORE=firestore $(RUN) pytest -n auto --dist worksteal --timeout=120 $(ON_FIRESTORE) $(ARGS)

soak: setup ## The long runs: crashes, faults, fuzzing, a rain of grants; every door on Firestore
	SOAK=1 $(RUN) pytest -n 0 tests/journeys $(ARGS)
	TEST_STORE=firestore $(RUN) pytest -n auto --dist worksteal --timeout=300 tests/doors $(ARGS)

check: lint types imports docs test ## Everything that CI checks

lint: setup ## Format and lint
	$(RUN) ruff format --check .
	$(RUN) ruff check .

types: setup ## Check types, strictly
	$(RUN) pyright

imports: setup ## Check that imports point down only
	$(RUN) lint-imports

docs: setup ## Check that the generated documentation is in step with the code
	$(RUN) python scripts/generate_docs.py --check

format: setup ## Format the code and write the generated documentation
	$(RUN) ruff format .
	$(RUN) ruff check --fix .
	$(RUN) python scripts/generate_docs.py

bench: setup ## Compare with the floor, in one run (several minutes)
	$(RUN) python -m benchmarks $(ARGS)

setup: $(UV) ## Install what the other targets need
	@# Compiled here, so that no start has to, even where Python may not write beside the sources.
	@$(UV) sync --frozen --quiet --all-extras --compile-bytecode
	@$(RUN) python -m compileall -q src

.uv/bin/uv:
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --target .uv 'uv>=0.9,<1'
