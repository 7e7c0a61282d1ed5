.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PY := .venv/bin/python
# A process that starts would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE
N ?= 50
SEED ?= 1
MINUTES ?= 30
# Test files side by side. Those that share two vLLM come before the others: memory for both, and no start beside a test
# of time. They are sorted: the last test of `test_vllm.py` kills one.
WORKERS ?= 4
# What `make check` runs; `make test CHECKED=1` leaves it out, where a check runs beside it (.ci/run).
HOUSE_TESTS := tests/test_architecture.py tests/test_docs.py tests/golden
# What `make charts` runs.
CHART_TESTS := tests/charts tests/scaling
# Programs in Python without a suffix; ruff's extend-include has the same.
SCRIPTS := scripts/chart_profiles scripts/house_numbers scripts/release_digests

.PHONY: help setup run test test-fast test-qdrant check fix faults chaos mutants evals gates bench charts pages docs lock clean
help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## Install everything into .venv and .venv-llm (every other target does it by itself)
	@scripts/setup

# Answers and names of files are Korean in a locale of any encoding.
setup run: export PYTHONUTF8 := 1
run: setup ## Start everything, load the sample documents, ask one question in each language, serve until Ctrl-C (ONCE=1: stop then; EMPTY=1: no samples, no questions)
	@exec $(PY) run.py $(if $(ONCE),--once) $(if $(EMPTY),--empty)

test: setup ## Run every test that this machine can run, but the chart's (CI=true: a skipped test fails)
	@scripts/test_parts
	@.venv/bin/llm-server fetch e5-small cpu-small
	@$(PY) -m pytest -m vllm $$(grep -rl --include='test_*.py' 'mark\.vllm' tests | sort)
	@$(PY) -m pytest -m 'not vllm and not long' -n $(WORKERS) --dist loadfile --no-loadscope-reorder --cache-clear \
	  $(addprefix --ignore=,$(CHART_TESTS) $(if $(CHECKED),$(HOUSE_TESTS))) || { [ $$? = 1 ] && \
	  echo "test: what failed beside others runs once more, alone" && $(PY) -m pytest -v --lf --lfnf none; }

test-fast: ## Run the tests that start no server, browser or model: a minute
	@scripts/setup --no-llm
	@$(PY) -m pytest -q --fast -n $(WORKERS) --dist loadfile

test-qdrant: setup ## Run the index's conformance suite on the Qdrant server at QDRANT_TEST_URL (key: QDRANT_TEST_API_KEY)
	@[ -n "$${QDRANT_TEST_URL:-}" ] || { echo "set QDRANT_TEST_URL to the address of a Qdrant server" >&2; exit 2; }
	@$(PY) -m pytest -q -m qdrant tests/knowledge/index

check: ## Format, lint, wording, types, import contracts, house rules
	@scripts/setup --no-llm
	@.venv/bin/ruff format --check -q .
	@.venv/bin/ruff check -q .
	@.venv/bin/typos
	@$(PY) scripts/prose.py
	@set -m; { .venv/bin/mypy && .venv/bin/mypy --scripts-are-modules $(SCRIPTS); } & typed=$$!; set +m; \
	  trap 'kill -- -$$typed 2>/dev/null || true' EXIT; \
	  .venv/bin/lint-imports --no-cache | tail -n 3; \
	  $(PY) -m pytest -q $(HOUSE_TESTS); \
	  wait $$typed
	@$(PY) scripts/house_numbers

fix: ## Format, and fix what lint can fix
	@.venv/bin/ruff format -q .
	@.venv/bin/ruff check -q --fix .

# A test that is `fresh` leaves what its module set up in another state: each of its rounds has a process of its own.
faults: setup ## Inject every fault that can be survived, N times each (N=50), and print how often each test passed
	@scripts/test_parts
	@.venv/bin/llm-server fetch e5-small
	@failed=0; $(PY) -m pytest -q -m '(faults or long) and not fresh' --patience 1 --faults $(N) || failed=1; \
	  for n in $$(seq $(N)); do $(PY) -m pytest -q -m '(faults or long) and fresh' --patience 1 || failed=1; done; exit $$failed

chaos: setup ## Break everything at random for MINUTES=30 under 30 customers (SEED=1), and count what they read that is not kept as they read it
	@scripts/test_parts
	@.venv/bin/llm-server fetch e5-small
	@exec $(PY) -m tests.e2e.chaos --minutes $(MINUTES) --seed $(SEED)

mutants: setup ## Try the kept changes of tests/mutants and print those that no test notices; fails below 85 % noticed
	@scripts/test_parts
	@$(PY) scripts/mutants.py tests/mutants/*.patch

evals: setup ## Score retrieval and answers on the golden set with the cpu profile; fails below the gates
	@.venv/bin/llm-server fetch e5-small cpu
	@.venv/bin/evals report --dataset evals/datasets/hanbit --profile cpu

gates: ## Hold retrieval (real weights) and recorded answers against their gates; no model server
	@scripts/setup --no-llm
	@.venv/bin/llm-server fetch e5-small
	@.venv/bin/evals gate

bench: setup ## Measure first token and memory against vLLM asked directly, and three times the load
	@.venv/bin/llm-server fetch e5-small cpu-small
	@failed=0; $(PY) -m evals.performance.bench || failed=$$?; $(PY) -m evals.performance.load && exit $$failed

attacks: setup ## Attack the whole product over a model that obeys everything (garak), and both APIs (schemathesis); 1 above a bound
	@scripts/attack_parts
	@.venv/bin/llm-server fetch e5-small
	@$(PY) -m evals.safety.attacks

charts: setup ## Check the chart, its rules and dashboards, the Dockerfile and the workflow, with the tools of each
	@scripts/chart_parts --checkov
	@$(PY) -m pytest -q -n $(WORKERS) --dist loadfile $(CHART_TESTS)
	@PATH="$$PWD/.venv/charts/checkov/bin:$$PATH" checkov -d tests/charts/golden --framework kubernetes
	@PATH="$$PWD/.venv/charts/checkov/bin:$$PATH" checkov -f Dockerfile --framework dockerfile

pages: ## Write docs/api.md, docs/settings.md and docs/metrics.md from the code
	@scripts/setup --no-llm
	@$(PY) -m tests.golden.pages

docs: ## Build the documentation site of docs/ into .data/docs; a dead anchor fails
	@scripts/setup --no-llm
	@scripts/doc_parts
	@NO_MKDOCS_2_WARNING=1 .venv/docs/bin/mkdocs build --strict --site-dir .data/docs
	@cp .venv/docs/mermaid.min.js .data/docs/

lock: ## Compile requirements/*.lock from requirements/*.in
	@scripts/lock

clean: ## Remove environments and local data (weights in the cache stay)
	@rm -rf .venv .venv-llm .data
