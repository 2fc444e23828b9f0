# Everything here runs from .venv, which the first target that needs it makes from requirements.lock.
# Nothing is installed outside of this folder.

PYTHON ?= python3
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
# What Python compiles is kept, whatever the environment says: tests start hundreds of processes, and pytest takes as
# long to rewrite the tests' assertions as to import all they use.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := .venv-peers
PEERS_LOCK := tests/bench/sequence/peers/requirements.lock
FUZZER := build/fuzz/packages
FUZZER_LOCK := tests/fuzz/requirements.lock
RECTOOLS := build/rectools
RECTOOLS_LOCK := tests/evaluation/rectools/requirements.lock
INDEX_PEERS := build/index-peers
INDEX_PEERS_LOCK := tests/bench/index/peers/requirements.lock
UV := $(shell command -v uv 2>/dev/null)
WORKERS ?= 2
# Files stay whole: what their tests share is made once. In order, so that the longest are not the last.
PARALLEL := --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder
PACKAGES := stream_app encoders index deploy
BENCHES := $(sort $(patsubst tests/bench/%.py,%,$(shell grep -l __main__ tests/bench/*.py)) \
  $(patsubst tests/bench/%/__main__.py,%,$(wildcard tests/bench/*/__main__.py)))

.PHONY: help demo demo-model test check faults soak screenshot fuzz bench clean lock lock-python \
  lock-deploy lock-peers lock-fuzz lock-rectools lock-index-peers lock-jars rectools index-peers python-version

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo "  make bench-NAME   Run one measurement"

demo: $(STAMP) ## Show the whole flow at work, on a broker of its own
	@$(BIN)/sliceflow demo

demo-model: $(STAMP) ## Train the demo's model again (one thread, so that it comes out the same), and judge its like
	@$(BIN)/sliceflow --config examples/movietweetings/sliceflow.toml train examples/movietweetings/events.ndjson.gz \
	  --out examples/movietweetings/model --half --threads 1
	@$(BIN)/sliceflow --config examples/movietweetings/sliceflow.toml evaluate examples/movietweetings/events.ndjson.gz \
	  --budget-s 120 --json > examples/movietweetings/model/.evaluation.json.part
	@mv examples/movietweetings/model/.evaluation.json.part examples/movietweetings/model/evaluation.json

test: $(STAMP) ## Run every test (WORKERS=2 at once, each with a broker of its own)
	@$(BIN)/python -m pytest $(PARALLEL)

check: $(STAMP) ## Check formatting, lint, types and import rules, and run the fast tests
	@$(BIN)/ruff format --check $(PACKAGES) tests
	@$(BIN)/ruff check $(PACKAGES) tests
	@$(BIN)/mypy --num-workers=$(WORKERS) $(PACKAGES) tests
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -q $(PARALLEL) -m "not kafka and not slow and not gpu" --hypothesis-profile=quick

faults: $(STAMP) ## Run the fault suite in its long form (an hour or more)
	@$(BIN)/python -m pytest tests/faults --long-faults

soak: $(STAMP) ## Steady load with random kills and audits, and a picture of it (MINUTES=60)
	@$(BIN)/python -m tests.faults.soak --minutes $(or $(MINUTES),60)

screenshot: $(STAMP) ## Take the README's pictures of the page anew (needs Chromium)
	@$(BIN)/python -m tests.web.page.screenshot

fuzz: $(STAMP) $(FUZZER) ## Feed the decoders with what a fuzzer comes up with (MINUTES=10, Linux)
	@PYTHONPATH=$(FUZZER) $(BIN)/python -m tests.fuzz.run --minutes $(or $(MINUTES),10)

bench: $(STAMP) ## List the measurements
	@for name in $(BENCHES); do echo "  make bench-$$name"; done

bench-%: $(STAMP)
	@$(BIN)/python -m tests.bench.$*

clean: ## Remove .venv, .venv-peers and everything that tools left behind
	@rm -rf $(VENV) $(PEERS) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist *.egg-info
	@find $(PACKAGES) tests -type d -name __pycache__ -prune -exec rm -rf {} +

lock: lock-python lock-deploy lock-peers lock-fuzz lock-rectools lock-index-peers lock-jars ## Bring the lists of pinned packages and of Kafka's jars up to date

# What is to be locked, and where.
lock-python: LOCKED = pyproject.toml --all-extras --output-file requirements.lock
# What runs in production, at the versions that are tested with: no tools, so a smaller image.
lock-deploy: LOCKED = pyproject.toml --extra tracing --constraints requirements.lock --output-file deploy/requirements.lock
lock-peers: LOCKED = $(PEERS_LOCK:.lock=.in) --output-file $(PEERS_LOCK)
lock-fuzz: LOCKED = $(FUZZER_LOCK:.lock=.in) --output-file $(FUZZER_LOCK)
lock-rectools: LOCKED = $(RECTOOLS_LOCK:.lock=.in) --output-file $(RECTOOLS_LOCK)
lock-index-peers: LOCKED = $(INDEX_PEERS_LOCK:.lock=.in) --output-file $(INDEX_PEERS_LOCK)

lock-python lock-deploy lock-peers lock-fuzz lock-rectools lock-index-peers:
	@uv="$(UV)"; [ -n "$$uv" ] || uv="$(BIN)/uv"; command -v "$$uv" >/dev/null || { \
	  echo "make lock needs uv, and there is none on PATH. To mend it: install uv." >&2; exit 1; }; \
	"$$uv" pip compile $(LOCKED) --quiet --universal --generate-hashes --no-annotate --no-header --python-version 3.11

lock-jars: $(STAMP)
	@$(BIN)/python -m stream_app.broker.relock

python-version:
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "There is no $(PYTHON) on PATH. To mend it: install Python 3.11 or newer, or name one:" \
	       "make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is $$("$(PYTHON)" --version 2>&1); Sliceflow needs Python 3.11 or newer." \
	       "To mend it: make PYTHON=/path/to/a/newer/python3" >&2; exit 1; }

# The stamp is newer than the lock and the project's own metadata as long as there is nothing to do.
$(STAMP): requirements.lock pyproject.toml
	@$(MAKE) python-version
	@echo "installing $$(grep -c '^[a-zA-Z]' requirements.lock) packages into $(VENV) (once; minutes on a slow line)"
ifneq ($(UV),)
	@[ -x $(BIN)/python ] || "$(UV)" venv --quiet --python "$(PYTHON)" $(VENV)
	@"$(UV)" pip install --python $(BIN)/python --require-hashes -r requirements.lock
	@"$(UV)" pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
else
	@[ -x $(BIN)/pip ] || "$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "To mend it: install the venv module of $(PYTHON) (python3-venv on Debian and Ubuntu)." >&2; exit 1; }
	@$(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r requirements.lock \
	  | awk '/^Collecting/ {n++; if (n % 10 == 0) {print "  " n " packages found"; fflush()}} \
	         /^Installing/ {print "  installing them"; fflush()}'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
endif
	@touch $@

# What measurements and tests compare with, each in an environment of its own: they want other versions than ours.
$(PEERS): $(PEERS)/.installed

rectools: $(RECTOOLS)/.installed ## Install RecTools apart, for the test that compares measures with its

index-peers: $(INDEX_PEERS)/.installed ## Install hnswlib and usearch apart, for bench-index

$(PEERS)/.installed: $(PEERS_LOCK)
$(RECTOOLS)/.installed: $(RECTOOLS_LOCK)
$(INDEX_PEERS)/.installed: $(INDEX_PEERS_LOCK)

$(PEERS)/.installed $(RECTOOLS)/.installed $(INDEX_PEERS)/.installed:
	@$(MAKE) python-version
	@echo "installing $$(grep -c '^[a-zA-Z]' $<) packages into $(@D)"
	@[ -x $(@D)/bin/pip ] || "$(PYTHON)" -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# The fuzzer is a package of 35 MB that nobody else needs.
$(FUZZER): $(FUZZER_LOCK) | $(STAMP)
	@echo "installing the fuzzer into $(FUZZER)"
	@rm -rf $@
ifneq ($(UV),)
	@"$(UV)" pip install --quiet --python $(BIN)/python --target $@ --require-hashes -r $<
else
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --target $@ --require-hashes -r $<
endif
	@touch $@
