# The few words of this project.  Everything runs in .venv, made from requirements.lock.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PEERS := .venv/.peers
LOCKED := --universal --generate-hashes --no-header --no-annotate

IN_IMAGE := -c requirements.lock --extra apprise --extra flower --extra otel

# What measures times has both cores to itself.
TIMED := tests/integration/test_bulk.py tests/integration/test_hanging_sink.py

MINUTES ?= 5
LEDGER ?= sqlite

.PHONY: demo test test-full faults soak bench bench-full bench-render bench-peers check fmt lock docs pictures

demo: $(READY)  ## the main job on eleven real scans, with everything embedded
	$(BIN)/scanherald demo

test: $(READY)  ## the tests that need Python packages alone
	$(BIN)/pytest -n 2 --dist loadfile -m "not full and not faults" tests/unit tests/contract
	$(BIN)/pytest -m "not full and not faults" --ignore tests/unit --ignore tests/contract

test-full: $(READY)  ## the tests that need the system packages of .ci/run, or much time
	$(BIN)/pytest -n 2 --dist loadfile -m full tests/unit tests/contract
	$(BIN)/pytest -n 2 --dist loadfile -m full tests/integration $(TIMED:%=--ignore %)
	$(BIN)/pytest -m full tests/acceptance tests/browser tests/faults $(TIMED)

faults: $(READY)  ## kill -9 everywhere; prints a line per fault test; LEDGER=postgresql: on that
	LEDGER=$(LEDGER) $(BIN)/pytest tests/faults

soak: $(READY)  ## MINUTES of steady load with random kills of everything, then an audit
	$(BIN)/python -m tests.faults.soak --minutes $(MINUTES)

bench: $(PEERS)  ## speed beside floors, peers and a naive service, as ratios of one run; PARTS=intake,growth
	$(BIN)/python -m benchmarks.bench --json bench.json --markdown bench.md $(if $(PARTS),--parts $(PARTS))

bench-full: $(PEERS)  ## the same with large sizes, then the renderers with their slow peers
	$(BIN)/python -m benchmarks.bench --full --json bench.json --markdown bench.md $(if $(PARTS),--parts $(PARTS))
	$(BIN)/python -m benchmarks.render --peers

bench-render: $(READY)  ## the renderers beside their floors, as ratios of one run
	$(BIN)/python -m benchmarks.render

bench-peers: $(PEERS)  ## the same beside other PDF libraries, which it installs first
	$(BIN)/python -m benchmarks.render --peers

check: $(READY)  ## lint, format, strict types, import direction, lock files, deployment files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/uv pip compile -q $(LOCKED) --extra dev pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile -q $(LOCKED) -c requirements.lock --extra bench pyproject.toml -o benchmarks/requirements.lock
	$(BIN)/uv pip compile -q $(LOCKED) $(IN_IMAGE) pyproject.toml -o deploy/image/requirements.lock
	$(BIN)/uv pip compile -q $(LOCKED) -c requirements.lock --group build -o deploy/image/build.lock
	git diff --exit-code --stat '*.lock'
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema -q --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/python deploy/kubernetes/validate.py

fmt: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(READY)  ## move every pin to the newest release
	$(BIN)/uv pip compile -q --upgrade $(LOCKED) --extra dev pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile -q --upgrade $(LOCKED) -c requirements.lock --extra bench pyproject.toml -o benchmarks/requirements.lock
	$(BIN)/uv pip compile -q --upgrade $(LOCKED) $(IN_IMAGE) pyproject.toml -o deploy/image/requirements.lock
	$(BIN)/uv pip compile -q --upgrade $(LOCKED) -c requirements.lock --group build -o deploy/image/build.lock

pictures: $(READY)  ## take the pictures of docs/reports.md again; needs Chromium
	$(BIN)/python -m docs.pictures

docs: $(READY)  ## write the generated pages again
	$(BIN)/python -m docs.generate

$(PEERS): $(READY) benchmarks/requirements.lock
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r benchmarks/requirements.lock
	@touch $(PEERS)

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)
