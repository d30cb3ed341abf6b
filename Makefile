# Everything a newcomer needs: `make demo`, `make test`. A Python >= 3.11, git and make are all that must be there.

PYTHON ?= python3
UV_VERSION = 0.13.9
UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
export UV_PYTHON_DOWNLOADS = never
# Prefect and SQLAlchemy are large: compiled once here, every process starts seconds sooner.
export UV_COMPILE_BYTECODE = 1
# The same for this project's modules: without their bytecode, every process and each test worker compiles them again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo up test check check-style check-types check-imports check-docs bytecode bench bench-peers docs format lock clean help

# Each in an environment of its own: they need different versions of the same client.
PEERS := $(patsubst benchmarks/peers/%/requirements.txt,%,$(wildcard benchmarks/peers/*/requirements.txt))
NODE_PEERS := $(patsubst benchmarks/peers/%/package.json,%,$(wildcard benchmarks/peers/*/package.json))
PEER_ENVS := benchmarks/peers/.envs
BENCHES := queue growth blocking accuracy delivery message submit import dns startup

help:  ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 12

demo: .venv/ready  ## run the example campaign on embedded parts, from CSV to delivered mail
	@.venv/bin/postroad demo

up: .venv/ready  ## start everything on this machine and stay until Ctrl-C
	@.venv/bin/postroad up

test: .venv/ready  ## run the tests
	.venv/bin/python -m pytest -n auto --no-loadscope-reorder

check: check-style check-types check-imports check-docs  ## lint, format, types, import rules, lock file, docs

check-style: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	$(UV) lock --check

check-types: .venv/ready
	.venv/bin/mypy

check-imports: .venv/ready
	.venv/bin/lint-imports

check-docs: .venv/ready
	.venv/bin/python -m pytest -q tests/docs --ignore=tests/docs/test_run_as_written.py

# The test workers start at the same time: without this, each of them compiles all tests.
bytecode: .venv/ready
	.venv/bin/python -m compileall -q src flows tasks deployments benchmarks
	.venv/bin/python -m pytest -q --collect-only >/dev/null

format: .venv/ready  ## put the code into its form
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: .venv/ready  ## measure everything, beside those peers that `make bench-peers` installed
	@failed=; for what in $(BENCHES); do \
	  .venv/bin/python -m benchmarks $$what || failed=1; \
	done; test -z "$$failed"

bench-peers: | $(UV)  ## install the programs that ours are measured beside, as many as will install
	@mkdir -p $(PEER_ENVS)
	@for peer in $(PEERS); do \
	  { $(UV) venv --quiet --clear --python $(PYTHON) $(PEER_ENVS)/$$peer \
	    && $(UV) pip install --quiet --python $(PEER_ENVS)/$$peer -r benchmarks/peers/$$peer/requirements.txt \
	    && echo "$$peer: installed"; } || { rm -rf $(PEER_ENVS)/$$peer; echo "$$peer: NOT INSTALLED"; }; \
	done
	@for peer in $(NODE_PEERS); do \
	  rm -rf $(PEER_ENVS)/$$peer; mkdir $(PEER_ENVS)/$$peer; cp benchmarks/peers/$$peer/package.json $(PEER_ENVS)/$$peer; \
	  { (cd $(PEER_ENVS)/$$peer && npm install --silent --no-package-lock --no-audit --no-fund) && echo "$$peer: installed"; } \
	    || { rm -rf $(PEER_ENVS)/$$peer; echo "$$peer: NOT INSTALLED (it needs node and npm)"; }; \
	done

docs: .venv/ready  ## write the references of the commands and of the API
	.venv/bin/python -m typer postroad.cli.app utils docs --name postroad > docs/reference/commands.md
	.venv/bin/python -m postroad.api.reference docs/reference/api.md

lock: $(UV)  ## resolve dependencies anew
	$(UV) lock

clean:  ## remove the environment and the state folder
	rm -rf .venv .tools .postroad

.tools/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Postroad needs Python 3.11 or newer; name one: make PYTHON=python3.12 …")'
	@echo "installing uv into .tools"
	$(PYTHON) -m venv .tools
	.tools/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

.venv/ready: pyproject.toml uv.lock | $(UV)
	@echo "making the Python environment in .venv: about 130 packages, about a minute"
	$(UV) sync --locked --python $(PYTHON)
	@.venv/bin/python -m compileall -q src flows tasks deployments
	@touch $@
