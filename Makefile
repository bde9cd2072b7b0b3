# Each target sets up what it needs, on a machine that has Python 3.11 or newer (tools/setup.sh does it).
# Installing is repeated only when the files that it depends on have changed.
#
#   make run                       the gateway on 127.0.0.1:8000, with a demo page at /
#   make test                      all tests, then the library's again on the pure-Python codec
#   make test PYTEST_ARGS="-k close"
#   make bench                     fastws beside other libraries; bench-quick: the same in a minute or so
#   make lint                      ruff, mypy, stubs against the compiled modules
#   make wheel                     sdist and wheel into dist/, and the wheel tested in an empty environment

PYTHON ?= python3
VENV ?= .venv
RUN_ARGS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=

BIN := $(VENV)/bin
export PYTHON
# Networks fail: let the package clients try longer than they do by default.
export PIP_RETRIES ?= 8
export PIP_DEFAULT_TIMEOUT ?= 60
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1
export npm_config_fetch_retries ?= 5

BUILD_FILES := setup.py pyproject.toml tools/build_backend.py fastws/_version.py
SOURCES := $(BUILD_FILES) $(wildcard fastws/*.pyx fastws/*.pxd fastws/kernels/*.c fastws/kernels/*.h)
# Only folders that hold Python files: mypy refuses an empty one.
TYPED := $(patsubst %/,%,$(sort $(dir $(wildcard fastws/*.py gateway/*.py bench/*.py))))
STUBBED := $(patsubst fastws/%.pyi,fastws.%,$(wildcard fastws/*.pyi))
# Every extension type is a "disjoint base" (PEP 800); older type checkers do not know the decorator.
STUBTEST_FLAGS := --ignore-disjoint-bases --ignore-unused-allowlist \
    --allowlist tests/packaging/stubtest-allowlist.txt
# The gateway has no pure-Python variant of its own; what differs is the library.
PURE_TESTS := $(wildcard tests/fastws tests/conformance)

.PHONY: run test bench bench-quick lint wheel clean
.DELETE_ON_ERROR:

# With a little history, so that a tab of the demo page that was away gets what it missed.
run: export FASTWS_DEV ?= true
run: export FASTWS_CHANNEL_WITHOUT_NAMESPACE_HISTORY_SIZE ?= 100
run: export FASTWS_CHANNEL_WITHOUT_NAMESPACE_HISTORY_TTL ?= 10m
run: $(VENV)/.gateway
	$(BIN)/fastws-gateway serve $(RUN_ARGS)

test: $(VENV)/.test $(VENV)/.browser
	$(BIN)/python -m pytest $(PYTEST_ARGS)
	FASTWS_PURE=1 $(BIN)/python -m pytest $(or $(PYTEST_ARGS),$(PURE_TESTS)) || \
	    { code=$$?; $(if $(PYTEST_ARGS),[ $$code -eq 5 ] ||) exit $$code; }

bench: $(VENV)/.bench
	$(BIN)/python -m bench $(BENCH_ARGS)

bench-quick: $(VENV)/.bench
	$(BIN)/python -m bench quick $(BENCH_ARGS)

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/mypy $(TYPED)
ifneq ($(STUBBED),)
	$(BIN)/python -m mypy.stubtest $(STUBTEST_FLAGS) $(STUBBED)
endif

wheel: $(VENV)/.test
	$(BIN)/python tests/packaging/check_wheel.py --output dist

clean:
	rm -rf $(VENV) build dist *.egg-info fastws/*.so fastws/*.pyd fastws/*.c fastws/*.html tests/e2e/node_modules
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	tools/setup.sh venv $(VENV)

$(VENV)/.gateway: $(BIN)/python $(SOURCES)
	tools/setup.sh compiler
	tools/setup.sh install $(VENV) gateway
	touch $@

$(VENV)/.test: $(BIN)/python $(SOURCES)
	tools/setup.sh compiler
	tools/setup.sh install $(VENV) gateway,test
	touch $@ $(VENV)/.gateway

$(VENV)/.bench: $(BIN)/python $(SOURCES)
	tools/setup.sh compiler
	tools/setup.sh install $(VENV) gateway,bench
	touch $@ $(VENV)/.gateway

$(VENV)/.lint: $(BIN)/python $(SOURCES)
	tools/setup.sh compiler
	tools/setup.sh install $(VENV) gateway,test,bench,lint
	touch $@ $(VENV)/.gateway $(VENV)/.test $(VENV)/.bench

$(VENV)/.browser: $(BIN)/python $(wildcard tests/e2e/package-lock.json)
	tools/setup.sh browser
	touch $@
