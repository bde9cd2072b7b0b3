#!/usr/bin/env bash
# Sets up what a make target needs and a fresh machine lacks. `make` calls it; it can be run by hand as well.
#
#   tools/setup.sh venv DIR             a virtual environment in DIR
#   tools/setup.sh compiler             a C compiler, if one can be installed; without it fastws runs on pure Python
#   tools/setup.sh clang                clang with libFuzzer and the run-time libraries of its sanitizers
#   tools/setup.sh valgrind             valgrind with its headers
#   tools/setup.sh install DIR EXTRAS   this checkout, editable, with the named extras, into the environment DIR
#   tools/setup.sh proxies              nginx and HAProxy, which tests of deploy/ put in front of the gateway
#   tools/setup.sh browser              Node.js with the clients of tests/e2e, and Chromium
#
# As root on Debian or Ubuntu it installs system packages with apt-get; otherwise it says which ones are missing.
# Downloads are tried three times: networks fail.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }

have() { command -v "$1" >/dev/null 2>&1; }

retry() {
    local attempt
    for attempt in 1 2 3; do
        if "$@"; then return 0; fi
        say "attempt $attempt of 3 failed: $*"
        sleep $((attempt * 3))
    done
    return 1
}

# Installs Debian packages, or returns 1 having said what to do.
packages() {
    if ! have apt-get; then
        say "please install: $* (the names are Debian's)"
        return 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        say "please run: sudo apt-get install $*"
        return 1
    fi
    retry apt-get -qq -o Acquire::Retries=3 update || say "apt-get update failed; trying with the lists at hand"
    DEBIAN_FRONTEND=noninteractive retry apt-get -qq -y -o Acquire::Retries=3 \
        install --no-install-recommends "$@" >/dev/null
}

venv() {
    local directory=$1 python=${PYTHON:-python3}
    if ! have "$python"; then
        packages python3 python3-venv || { say "Python 3.11 or newer is needed"; exit 1; }
    fi
    "$python" - <<'CHECK' || exit 1
import sys
if sys.version_info < (3, 11):
    sys.exit(f"setup: Python 3.11 or newer is needed, {sys.executable} is "
             f"{sys.version.split()[0]}; choose another with make PYTHON=...")
CHECK
    # Debian ships venv without ensurepip unless python3-venv is installed.
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        packages python3-venv || exit 1
    fi
    "$python" -m venv "$directory"
}

compiler() {
    local cc
    cc=$("${PYTHON:-python3}" -c 'import os, sysconfig
print((os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0])')
    local headers
    headers=$("${PYTHON:-python3}" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    if have "$cc" && [ -e "$headers/Python.h" ]; then return 0; fi
    if packages gcc libc6-dev python3-dev; then return 0; fi
    say "no C compiler: fastws will run on its pure-Python codec"
}

clang() {
    local program=${FUZZ_CC:-clang}
    if have "$program" && echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' |
        command "$program" -x c - -fsanitize=fuzzer,address,undefined -o /dev/null 2>/dev/null; then return 0; fi
    # The name of the run-time libraries has clang's version in it.
    packages clang && packages "$(apt-cache depends clang | sed -n 's/.*Depends: clang-\([0-9]*\)$/libclang-rt-\1-dev/p')"
}

valgrind() {
    # The function hides the program, and the test is about both.
    if [ -n "$(type -P valgrind)" ] && [ -e /usr/include/valgrind/callgrind.h ]; then return 0; fi
    packages valgrind
}

install() {
    local python=$1/bin/python extras=$2
    retry "$python" -m pip install --quiet 'setuptools>=77' 'Cython>=3.1'
    # A broken source file must stop a developer, not hand out the extensions of the last build that worked.
    if [ -z "${FASTWS_BUILD:-}" ] && PYTHONPATH=tools "$python" -c '
import sys, build_backend
sys.exit(not build_backend.compiler_works())'; then
        export FASTWS_BUILD=require
    fi
    retry "$python" -m pip install --quiet --no-build-isolation --editable ".[$extras]"
}

proxies() {
    # Debian's packages start a server of their own where an init system runs: it is not ours to stop.
    local program missing=()
    for program in nginx haproxy; do
        if ! have "$program" && [ ! -x "/usr/sbin/$program" ]; then missing+=("$program"); fi
    done
    [ ${#missing[@]} -eq 0 ] || packages "${missing[@]}" || say "without ${missing[*]} their tests are skipped"
}

browser() {
    if ! have npm; then packages nodejs npm || say "without Node.js the tests of other people's clients are skipped"; fi
    if have npm; then
        (cd tests/e2e && retry npm ci --no-audit --no-fund --loglevel=error)
    fi
    if ! have chromium && ! have google-chrome && ! have chrome; then
        packages chromium || say "without Chromium the browser tests are skipped"
    fi
}

"$@"
