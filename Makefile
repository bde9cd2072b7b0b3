# Each target sets up what it needs, on a machine that has Python 3.11 or newer (tools/setup.sh does it).
# Installing is repeated only when the files that it depends on have changed.
#
#   make run                       the gateway on 127.0.0.1:8000, with a demo page at /
#   make test                      all tests, then the library's again on the pure-Python codec
#   make test PYTEST_ARGS="-k close" JOBS=0
#   make test-all                  the library's tests on every CPython from 3.11 up that the machine has
#   make bench                     fastws beside other libraries, half an hour; bench-quick: the main cases
#   make micro                     single functions beside those of other libraries
#   make instructions              instructions per message by callgrind, against the baseline in the repository
#   make lint                      ruff, mypy, stubs against the compiled modules
#   make sanitize                  the library's tests on modules compiled with AddressSanitizer and UBSan
#   make leaks                     a million messages, and 100,000 connections that end in every way: what is left
#   make fuzz                      libFuzzer on every target for a minute; FUZZ_TARGETS, FUZZ_TIME, FUZZ_RUNS
#   make conformance               the whole Autobahn suite on every codec and carrier, into docs/conformance.md
#   make wheel                     sdist and wheel into dist/, and the wheel tested in an empty environment

PYTHON ?= python3
VENV ?= .venv
RUN_ARGS ?=
PYTEST_ARGS ?=
# Processes that share a run of the tests; 0 runs them in pytest's own, which a debugger wants.
JOBS ?= auto
BENCH_ARGS ?=
CONFORMANCE_ARGS ?=
FUZZ_TARGETS ?= all
# Seconds, or inputs, for each target.
FUZZ_TIME ?= $(if $(FUZZ_RUNS),0,60)
FUZZ_RUNS ?=
FUZZ_FLAGS ?=

BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist worksteal
export PYTHON
# Networks fail: let the package clients try longer than they do by default.
export PIP_RETRIES ?= 8
export PIP_DEFAULT_TIMEOUT ?= 60
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1
export npm_config_fetch_retries ?= 5

BUILD_FILES := setup.py pyproject.toml tools/build_backend.py fastws/_version.py
SOURCES := $(BUILD_FILES) $(wildcard fastws/*.pyx fastws/*.pxd fastws/kernels/*.c fastws/kernels/*.h)
# Only folders that hold Python files: mypy refuses an empty one.
TYPED := $(patsubst %/,%,$(sort $(dir $(wildcard fastws/*.py gateway/*.py bench/*.py fuzz/*.py))))
STUBBED := $(patsubst fastws/%.pyi,fastws.%,$(wildcard fastws/*.pyi))
# Every extension type is a "disjoint base" (PEP 800); older type checkers do not know the decorator.
STUBTEST_FLAGS := --ignore-disjoint-bases --ignore-unused-allowlist \
    --allowlist tests/packaging/stubtest-allowlist.txt
# The gateway has no pure-Python variant of its own; what differs is the library.
PURE_TESTS := $(wildcard tests/fastws tests/conformance)

.PHONY: run test test-library test-all bench bench-quick micro instructions lint sanitize leaks conformance fuzz
.PHONY: fuzz-minimise wheel clean
.DELETE_ON_ERROR:

# With a little history, so that a tab of the demo page that was away gets what it missed.
run: export FASTWS_DEV ?= true
run: export FASTWS_CHANNEL_WITHOUT_NAMESPACE_HISTORY_SIZE ?= 100
run: export FASTWS_CHANNEL_WITHOUT_NAMESPACE_HISTORY_TTL ?= 10m
run: $(VENV)/.gateway
	$(BIN)/fastws-gateway serve $(RUN_ARGS)

test: $(VENV)/.test $(VENV)/.browser $(VENV)/.proxies
	$(PYTEST) $(PYTEST_ARGS)
	FASTWS_PURE=1 $(PYTEST) $(or $(PYTEST_ARGS),$(PURE_TESTS)) || \
	    { code=$$?; $(if $(PYTEST_ARGS),[ $$code -eq 5 ] ||) exit $$code; }

test-library: $(VENV)/.library
	$(PYTEST) tests/fastws $(PYTEST_ARGS)
	$(if $(COMPILED_ONLY),,FASTWS_PURE=1 $(PYTEST) tests/fastws $(PYTEST_ARGS))

# Each in an environment of its own, .venv-3.13 and so on. OTHERS=1 leaves the version of $(PYTHON) out,
# COMPILED_ONLY=1 the pure codec.
test-all:
	$(PYTHON) tools/interpreters.py $(if $(OTHERS),--except $(PYTHON)) | while read -r name python; do \
	    echo "=== CPython $$name"; \
	    $(MAKE) --no-print-directory PYTHON="$$python" VENV=.venv-"$$name" test-library </dev/null || exit 1; \
	done

bench: $(VENV)/.peers
	$(BIN)/python -m bench $(BENCH_ARGS)

bench-quick: $(VENV)/.peers
	$(BIN)/python -m bench quick $(BENCH_ARGS)

# MICRO_ARGS="-k mask"
micro: $(VENV)/.peers
	$(BIN)/python -m bench.micro $(MICRO_ARGS)

instructions: $(VENV)/.test
	tools/setup.sh valgrind
	$(BIN)/python -m bench.instructions $(INSTRUCTIONS_ARGS)

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/mypy $(TYPED)
ifneq ($(STUBBED),)
	$(BIN)/python -m mypy.stubtest $(STUBTEST_FLAGS) $(STUBBED)
endif

# The slow tests run other programs, or count what allocators hold: neither has to do with these sanitizers.
sanitize: $(VENV)/.test
	tools/sanitize.sh $(BIN)/python -n $(JOBS) --dist worksteal -m "not slow" $(PYTEST_ARGS)

leaks: $(VENV)/.test
	$(BIN)/python -m tests.fastws.leaks
	FASTWS_PURE=1 $(BIN)/python -m tests.fastws.leaks --carrier asyncio

conformance: $(VENV)/.test
	$(BIN)/python -m tests.conformance.report $(CONFORMANCE_ARGS)

fuzz: $(VENV)/.test
	tools/setup.sh clang
	$(BIN)/python -m fuzz run $(FUZZ_TARGETS) --seconds $(FUZZ_TIME) --runs $(or $(FUZZ_RUNS),0) $(FUZZ_FLAGS)

fuzz-minimise: $(VENV)/.test
	tools/setup.sh clang
	$(BIN)/python -m fuzz minimise $(FUZZ_TARGETS)

wheel: $(VENV)/.test
	$(BIN)/python tests/packaging/check_wheel.py --output dist -- -n $(JOBS) --dist worksteal -m "not slow" $(PYTEST_ARGS)

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

$(VENV)/.library: $(BIN)/python $(SOURCES)
	tools/setup.sh compiler
	tools/setup.sh install $(VENV) test
	touch $@

$(VENV)/.bench: $(BIN)/python $(SOURCES)
	tools/setup.sh compiler
	tools/setup.sh install $(VENV) gateway,bench
	touch $@ $(VENV)/.gateway

# What can't be installed is a row of the report that says why.
$(VENV)/.peers: $(VENV)/.bench $(wildcard bench/peers/requirements*.txt bench/peers/node/package-lock.json) \
    bench/peers/_programs.py
	$(BIN)/python -m bench.peers install
	touch $@

$(VENV)/.lint: $(BIN)/python $(SOURCES)
	tools/setup.sh compiler
	tools/setup.sh install $(VENV) gateway,test,bench,lint
	touch $@ $(VENV)/.gateway $(VENV)/.test $(VENV)/.bench

$(VENV)/.browser: $(BIN)/python $(wildcard tests/e2e/package-lock.json)
	tools/setup.sh browser
	touch $@

$(VENV)/.proxies: $(BIN)/python
	tools/setup.sh proxies
	touch $@
