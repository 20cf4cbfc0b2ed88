# Everything runs in .venv, which is made when it is missing and brought up to date when a requirement changes.
PYTHON3 ?= python3
# An extra index of wheels, such as PyTorch's CPU one; without it Linux gets torch with all of CUDA.
TORCH_INDEX ?=

PYTHON := .venv/bin/python
PIP := $(PYTHON) -m pip install -q --disable-pip-version-check -c constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

install: .venv/dev ## set up everything: the service, the tests, the linters

demo: .venv/runtime ## create, train and run LoRA layers once, over real HTTP
	@$(PYTHON) -m service demo

serve: .venv/runtime ## run the service on port 8000
	@$(PYTHON) -m service serve

# Tests that tell by the clock how processes behave, one after another. The others, three at a time on two cores: many of
# them wait for a process.
ALONE := tests/jobs tests/serving tests/test_worker.py tests/api/test_server.py tests/api/test_serving.py \
	tests/api/test_patience.py tests/faults/test_clients.py tests/faults/test_load.py \
	tests/browser/test_first_visit.py tests/browser/test_scale.py
# Each of their many processes compiles anew what it imports where that may not be kept; and threads of torch that do not
# sleep while they wait keep the cores from those they wait for.
PYTEST := PYTHONDONTWRITEBYTECODE= $(PYTHON) -m pytest
MANY := OMP_WAIT_POLICY=passive $(PYTEST) -n 3 --dist worksteal $(addprefix --ignore=,$(ALONE))

test: .venv/dev ## run the tests
	$(MANY)
	$(PYTEST) $(ALONE)

cover: .venv/dev ## run the tests and show what they cover, which takes half as long again
	$(PYTHON) -m coverage erase
	$(MANY) --cov --cov-append --cov-report=
	$(PYTEST) --cov --cov-append --cov-report=term $(ALONE)

lint: .venv/dev ## check style and types
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy
	$(PYTHON) -m bandit -q -c pyproject.toml -r service tools docs

audit: .venv/dev ## ask which pinned versions have known holes, which takes a network
	@$(PYTHON) -m tools.audit

fuzz: .venv/dev ## ask a service many strange things, for ten minutes or more
	$(PYTHON) -m tests.trust.schema --examples 50
	$(PYTHON) -m tests.trust.fuzz 300

# How long, and from which seed; a seed is drawn and told where none is given.
SECONDS ?= 60
SEED ?=

chaos: .venv/dev ## inject faults at random into a durable server for SECONDS, from a SEED
	@$(PYTHON) -m tests.faults.chaos $(SECONDS) $(SEED)

openapi: .venv/runtime ## write docs/openapi.json anew
	@$(PYTHON) -m service.api.openapi > docs/openapi.json.new
	@mv docs/openapi.json.new docs/openapi.json

docs: .venv/dev ## write the documentation to site/
	@$(PYTHON) -m docs site

bench: .venv/dev ## measure the service
	$(PYTHON) -m benchmarks.training
	$(PYTHON) -m benchmarks.serving
	$(PYTHON) -m benchmarks.durable

twins: .venv/dev ## write the plain client from the asynchronous one
	$(PYTHON) -m tools.twins

.venv/runtime: pyproject.toml constraints.txt
	@$(PYTHON3) -c 'import sys; sys.version_info < (3, 11) and sys.exit("Python 3.11 or later is needed: make PYTHON3=…")'
	@echo "Setting up .venv, which takes a few minutes the first time"
	@$(PYTHON3) -m venv .venv
	@$(PIP) -U pip
	@$(PIP) --build-constraint constraints.txt -e .
	@touch $@

.venv/dev: .venv/runtime
	@$(PIP) --group dev
	@touch $@

.PHONY: help install demo serve test cover lint audit fuzz chaos docs openapi twins bench
