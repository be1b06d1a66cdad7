# Every target sets up what it needs inside this directory: a virtual environment in .venv, everything else in .cache.
# PYTHON chooses the interpreter of the virtual environment (3.11 or newer).

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup core run test screenshots coverage check docs bench bench-quick frp kubernetes traefik lock clean

setup: $(READY)

$(READY): pyproject.toml requirements.lock scripts/setup
	PYTHON="$(PYTHON)" scripts/setup
	@touch $@

# The optional compiled parts: core/, built by cargo and installed, and what of src/ mypyc compiles, in .cache/compiled. The
# same suite passes with them and without them: HARP_CORE=required make test, HARP_CORE=off make test.
core: $(READY)
	scripts/build-core

run: $(READY)
	$(BIN)/harp demo

# Suites that need another program (nginx, frpc, ...) skip with a reason where it is missing; HARP_PEERS=required makes them fail.
test: $(READY)
	scripts/test $(ARGS)

# The pictures of the status page in docs/, taken by the test that looks at it in Chromium.
screenshots: $(READY)
	HARP_SCREENSHOTS=docs/screenshots $(BIN)/python -m pytest -q tests/live/test_page.py

# `make test`, and what it reaches of each package, with branches and sub-processes: 95 % is the goal, below 93 % it fails.
coverage: $(READY)
	scripts/coverage $(ARGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src tests benchmarks compiled scripts/coverage_gate.py scripts/rights.py scripts/release.py scripts/prose.py scripts/reference.py
	$(BIN)/codespell
	$(BIN)/python scripts/prose.py
	$(BIN)/python scripts/reference.py --check
	$(MAKE) --no-print-directory docs

# The documentation as a site, in .cache/site: every warning, and every link that leads nowhere, is an error.
docs: $(READY)
	$(BIN)/sphinx-build -q -W --keep-going -c docs -d .cache/site-trees . .cache/site

# Us beside HAProxy, nginx, Caddy, Traefik and frps. ARGS=--publish writes the figures to docs/; see docs/performance.md.
bench: $(READY)
	PYTHONPATH="$$(scripts/compiled)" $(BIN)/python -m benchmarks $(ARGS)

bench-quick: $(READY)
	PYTHONPATH="$$(scripts/compiled)" $(BIN)/python -m benchmarks --quick $(ARGS)

# Real frpc and frps, built from source into .cache/frp.
frp:
	go="$$(scripts/install-go)" && PATH="$$go:$$PATH" frp/build

# A real Kubernetes with etcd, KWOK, Helm and kubeconform, built from source into .cache/kubernetes: ten minutes, once.
kubernetes:
	go="$$(scripts/install-go)" && PATH="$$go:$$PATH" scripts/kubernetes/build $(ARGS)

# Traefik, built from source into .cache/traefik; tests of reverse proxies and benchmarks use it.
traefik:
	go="$$(scripts/install-go)" && PATH="$$go:$$PATH" scripts/build-traefik

# Pins the newest versions that pyproject.toml allows.
lock:
	PYTHON="$(PYTHON)" scripts/lock

clean:
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache
