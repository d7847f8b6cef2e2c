.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo

.PHONY: help setup demo test check bench bench-lists crash scrub nightly verify golden clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.made ## make the environment (.venv) with every pinned version

$(VENV)/.made: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[run,dev]'
	@touch $@

demo: setup ## draw, download, scrub and verify a mini-scrape; needs nothing else
	$(BIN)/python examples/demo/run.py $(DEMO)

test: setup ## run the test suite
	$(BIN)/python -m pytest -q -n 3 --dist loadscope --no-loadscope-reorder -rs -m "not crash"
	$(BIN)/python -m pytest -q -n 3 --dist loadscope --no-loadscope-reorder -rs -m crash --crash-rounds 3

check: setup ## lint, types, layers, formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup ## time the host path and a whole run against named references; JSON under benchmarks/out
	$(BIN)/python benchmarks/host_path.py
	$(BIN)/python benchmarks/pdq.py
	$(BIN)/python benchmarks/whole_run.py
	$(BIN)/python benchmarks/forward.py
	$(BIN)/python benchmarks/flips.py
	$(BIN)/python benchmarks/audit_log.py

bench-lists: setup ## time imports, exact searches and digest joins of long lists; takes a quarter of an hour
	$(BIN)/python benchmarks/list_import.py
	$(BIN)/python benchmarks/vics_import.py
	$(BIN)/python benchmarks/digest_join.py
	$(BIN)/python benchmarks/search.py

crash: setup ## kill a real run at 30 random moments
	$(BIN)/python -m pytest -q -n 3 --dist loadscope --no-loadscope-reorder -rs -m crash --crash-rounds 30

scrub: setup ## run a configuration: make scrub CONFIG=scrub.toml
	@test -n "$(CONFIG)" || { echo "say which: make scrub CONFIG=scrub.toml" >&2; exit 2; }
	$(BIN)/shardscrub run $(CONFIG)

nightly: setup ## do what is new since the last night: make nightly CONFIG=scrub.toml
	@test -n "$(CONFIG)" || { echo "say which: make nightly CONFIG=scrub.toml" >&2; exit 2; }
	@$(BIN)/shardscrub nightly --config $(CONFIG)

verify: setup ## check a finished collection: make verify RUN=collection
	@test -n "$(RUN)" || { echo "say which: make verify RUN=collection" >&2; exit 2; }
	$(BIN)/shardscrub verify $(RUN)

golden: setup ## rewrite the golden files; review the difference before committing
	$(BIN)/python -m pytest -q tests/golden --rewrite-golden

clean: ## remove the environment and the demo
	rm -rf $(VENV) demo benchmarks/out
