# Every target describes itself: `make help`.
PYTHON ?= python3
ARGS ?=
RUN := .venv/bin/python
SETUP := $(PYTHON) -I platform/stack/setup_env.py

.DEFAULT_GOAL := help
.PHONY: help up test check sanitize bench doctor fmt clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: ## Start the whole utility and serve a first request; ARGS=--once stops after it
	@$(SETUP)
	@exec $(RUN) -m stack.up $(ARGS)

test: ## Run the test suite on real services; ARGS= goes to pytest
	@$(SETUP) --dev
	@$(RUN) -m stack.browser || true # the browser test says again what is missing
	@exec $(RUN) -m pytest $(ARGS)

check: ## Lint, format, strict types, import layers, migrations, settings
	@$(SETUP) --dev
	@exec $(RUN) -m stack.check

sanitize: ## Test the CPU kernels under AddressSanitizer and UBSan (gcc); ARGS= goes to pytest
	@$(SETUP) --dev
	@exec $(RUN) -m stack.sanitize $(ARGS)

bench: ## Run the benches and write build/bench/*.json
	@$(SETUP) --dev
	@exec $(RUN) -m stack.bench $(ARGS)

doctor: ## Say what is missing or misconfigured on this machine
	@exec $(PYTHON) -I platform/stack/doctor.py

fmt: ## Format and fix what can be fixed without thinking
	@$(SETUP) --dev
	@$(RUN) -m ruff format .
	@$(RUN) -m ruff check --fix .

clean: ## Remove state, builds and caches (keeps .venv)
	@exec $(PYTHON) -I platform/stack/clean.py
