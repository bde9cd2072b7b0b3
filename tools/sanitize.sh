#!/usr/bin/env bash
# Runs the library's tests on extension modules compiled with AddressSanitizer and UndefinedBehaviorSanitizer.
#
#   tools/sanitize.sh PYTHON [PYTEST ARGUMENT ...]
#
# In a copy of the sources, build/sanitize, so that the modules of the checkout stay as they are. Python itself is not
# compiled with the sanitizers: their run-time library is loaded before it.
set -euo pipefail
cd "$(dirname "$0")/.."

python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
shift
cc=${CC:-gcc}
copy=build/sanitize

case $("$cc" --version) in
    *clang*) runtime=$("$cc" -print-file-name="libclang_rt.asan-$(uname -m).so") ;;
    *) runtime=$("$cc" -print-file-name=libasan.so) ;;
esac
if [ ! -e "$runtime" ]; then
    echo "sanitize: $cc has no run-time library of AddressSanitizer ($runtime)" >&2
    exit 1
fi

mkdir -p "$copy"
# What Cython writes there stays; it is newer than what is copied, unless that has changed.
tar --exclude '*.so' --exclude __pycache__ --exclude 'fastws/_*.c' \
    -cf - fastws tests/conftest.py tests/fastws docs examples tools setup.py pyproject.toml README.md LICENSE | tar -C "$copy" -xf -
cd "$copy"
CC=$cc LDSHARED="$cc -shared" FASTWS_SANITIZE=address,undefined FASTWS_WERROR='' \
    "$python" setup.py --quiet build_ext --inplace

# Memory from malloc and not from Python's pools, or a read behind the end of a small object would not be seen. Python
# does not free all it has when it ends, so leaks are the matter of tests/fastws/test_leaks.py. libstdc++ must be there
# when the run-time library starts, for modules that are written in C++.
export LD_PRELOAD="$runtime $("$cc" -print-file-name=libstdc++.so)"
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1
export UBSAN_OPTIONS=print_stacktrace=1
export PYTHONMALLOC=malloc

# These compare times, which are others under AddressSanitizer.
exec "$python" -m pytest tests/fastws "$@" \
    --deselect tests/fastws/test_decoder.py::test_time_grows_with_the_bytes_and_not_with_their_square \
    --deselect tests/fastws/test_reactor.py::test_wide_broadcast_lets_the_loop_breathe
