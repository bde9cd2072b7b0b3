"""The extension modules of fastws and how they are compiled. The rest is in pyproject.toml.

Environment, read here (docs/building.md explains each):

FASTWS_BUILD     "pure" leaves the extensions out. What happens when they do not compile is
                 decided in tools/build_backend.py; run directly, this file always fails then.
FASTWS_WERROR    "1": a warning of the C compiler or of Cython is an error.
FASTWS_SANITIZE  for example "address,undefined": passed to -fsanitize=.
FASTWS_ANNOTATE  "1": Cython writes fastws/*.html, which shows what each line costs.
FASTWS_JOBS      how many compilers run at once (default: one per processor).
"""

import os
import sys
from glob import glob

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# They need epoll. Elsewhere the asyncio carrier does the work.
LINUX_ONLY = ("fastws._poller", "fastws._ring", "fastws._tls")

# The kernels are linked into this module alone, so that their tables of function pointers exist
# once; the other modules reach them by cimport.
KERNELS_IN = "fastws._codec"

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "embedsignature": True,
    # Methods as plain C method descriptors: CPython calls those without building arguments.
    "binding": False,
}

# Code that Cython 3.1 or newer generates is as free of these warnings as what people write:
# there is nothing to switch off.
FLAGS_UNIX = ["-O3", "-Wall", "-Wextra", "-fvisibility=hidden"]
FLAGS_MSVC = ["/O2"]
# What a sanitizer finds ends the process: a test during which it only prints would pass. Cython
# adds 0 to pointers that may be NULL, which is undefined in C and harmless.
FLAGS_SANITIZE = [
    "-O1",
    "-g",
    "-fno-omit-frame-pointer",
    "-fno-sanitize-recover=all",
    "-fno-sanitize=pointer-overflow",
]


def enabled(name):
    return os.environ.get(name, "") not in ("", "0")


class BuildExt(build_ext):
    """Runs Cython when extensions are built, not when setup.py is read: an sdist needs none."""

    def finalize_options(self):
        super().finalize_options()
        if self.parallel is None:
            self.parallel = int(os.environ.get("FASTWS_JOBS") or os.cpu_count() or 1)
        self.sanitize = os.environ.get("FASTWS_SANITIZE", "")
        self.werror = enabled("FASTWS_WERROR")
        # A build with other flags must not be taken for up to date.
        self.force = self.force or bool(self.sanitize)

    def build_extensions(self):
        self.run_cython()
        compile_args, link_args = self.flags()
        for ext in self.extensions:
            ext.extra_compile_args += compile_args
            ext.extra_link_args += link_args
        super().build_extensions()

    def run_cython(self):
        """Puts the C file that Cython writes in the place of each .pyx."""
        from Cython.Build import cythonize
        from Cython.Compiler import Options

        Options.warning_errors = self.werror
        generated = cythonize(
            [Extension(ext.name, ext.sources) for ext in self.extensions],
            compiler_directives=DIRECTIVES,
            annotate=enabled("FASTWS_ANNOTATE"),
            force=self.force,
        )
        sources = {ext.name: ext.sources for ext in generated}
        for ext in self.extensions:
            ext.sources = sources[ext.name]

    def flags(self):
        """Arguments for the compiler and for the linker."""
        if self.compiler.compiler_type == "msvc":
            return FLAGS_MSVC + ["/WX"] * self.werror, []
        compile_args = FLAGS_UNIX + ["-Werror"] * self.werror
        if not self.sanitize:
            return compile_args, []
        sanitize = f"-fsanitize={self.sanitize}"
        return [*compile_args, sanitize, *FLAGS_SANITIZE], [sanitize]


def extensions():
    if os.environ.get("FASTWS_BUILD") == "pure":
        return []
    # What a module includes or cimports may change it: rebuild all of them, it takes seconds.
    headers = glob("fastws/kernels/*.h") + glob("fastws/*.pxd")
    found = []
    for source in sorted(glob("fastws/*.pyx")):
        name = source.removesuffix(".pyx").replace(os.sep, ".").replace("/", ".")
        if name in LINUX_ONLY and sys.platform != "linux":
            continue
        sources = [source]
        if name == KERNELS_IN:
            sources += sorted(glob("fastws/kernels/*.c"))
        found.append(Extension(name, sources, include_dirs=["fastws"], depends=headers))
    return found


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt})
