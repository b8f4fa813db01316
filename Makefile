# The main commands are `make demo` and `make test`. Both install everything into .venv first.
.DEFAULT_GOAL := help
SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# stages call `python -m tasks...`: let them find the environment's python
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONUNBUFFERED := 1

# opencv-python needs three system libraries that may be missing on a server
PACKAGES := libgl1 libglib2.0-0 libxcb1
SYSTEM_LIBRARIES = { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -qq -y $(PACKAGES); } || \
	{ echo "opencv-python does not load; install its system libraries: sudo apt-get install $(PACKAGES)"; exit 1; }

PYTEST = $(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

.PHONY: help setup demo repro profile test test-all again lint docs format bench mlflow results serve worker deploy clean distclean

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk 'BEGIN {FS = ":.*## "} {printf "  make %-10s %s\n", $$1, $$2}'

# The environment is rebuilt only when the pins change. pip compiles all bytecode here: with PYTHONDONTWRITEBYTECODE
# set, as in many containers, every process would otherwise compile its imports, which takes eight seconds or more. pip
# also installs dependencies that are not pinned: torch for a GPU needs such libraries.
$(VENV)/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check
	@$(BIN)/python -c 'import cv2' 2>/dev/null || $(SYSTEM_LIBRARIES)
	touch $@

mlflow.db: | $(VENV)/installed
	$(BIN)/python -m tasks.tracking init

setup: $(VENV)/installed mlflow.db ## install everything into .venv and create the MLflow database

demo: ## set up and run the pipeline on the built-in data set, to reports/index.html
	@$(MAKE) --no-print-directory profile NAME=demo
	@echo "open $(CURDIR)/reports/index.html"

repro: setup ## run what params.yaml lists (only what has changed)
	$(BIN)/dvc repro

profile: setup ## copy a profile to params.yaml and run it: make profile NAME=ped2-cpu
	$(BIN)/vad profile "$(NAME)"

test: setup ## run the unit and integration tests
	$(PYTEST) tests/unit tests/integration

test-all: setup ## run all tests, including the end-to-end tests
	$(PYTEST)

again: setup ## run the whole demo again and compare its results with the stored ones, to the last digit
	VAD_WHOLE_DEMO=1 $(BIN)/python -m pytest -rs tests/e2e/test_demo.py

lint: $(VENV)/installed ## check style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

docs: $(VENV)/installed ## build the documentation site into site/
	$(BIN)/python -m docs.configuration
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: $(VENV)/installed ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## measure the speed ratios
	$(BIN)/python -m benchmarks.ratios
	$(BIN)/python -m benchmarks.reading
	$(BIN)/python -m benchmarks.flow_ratios
	$(BIN)/python -m benchmarks.overhead

results: $(VENV)/installed ## store this run's results in benchmarks/results, README and docs [INTO=profile COMMAND=text]
	$(BIN)/python -m benchmarks.publish $(if $(INTO),--into "$(INTO)") $(if $(COMMAND),--command "$(COMMAND)")

mlflow: setup ## browse the runs at http://127.0.0.1:5000
	@case "$$MLFLOW_TRACKING_URI" in http*) echo "the runs are at $$MLFLOW_TRACKING_URI"; exit 1;; esac
	$(BIN)/mlflow server --backend-store-uri $${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db} --host 127.0.0.1 --port 5000

serve: setup ## start Prefect, MLflow and a worker on this machine, until Ctrl-C
	$(BIN)/python -m flows.serve

worker: setup ## start a worker of the Prefect server at PREFECT_API_URL
	$(BIN)/python -m flows.serve worker

deploy: setup ## register the deployments of prefect.yaml with the Prefect server
	PREFECT_API_URL=$${PREFECT_API_URL:-http://127.0.0.1:4200/api} $(BIN)/prefect --no-prompt deploy --all

clean: ## remove the outputs of the pipeline, keep the environment, detections/ and inbox/
	rm -rf data models pictures scores reports checkpoints detectors tracking mlflow.db mlartifacts settings.yaml weights/*/ site dvc_plots

distclean: clean ## also remove the environment and DVC's cache
	rm -rf $(VENV) .dvc/cache .dvc/tmp *.egg-info
