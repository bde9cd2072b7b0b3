"""Servers under test that are no packages of this interpreter: where they are, and how to get them.

What is fetched or built is in `bench/build/`, and nothing of it is kept in the repository.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).parent
BUILD = HERE.parent / "build"
REASONS = BUILD / "not-installed.json"
NODE_FOLDER = HERE / "node"
CENTRIFUGO_VERSION = "6.9.1"
UWEBSOCKETS_CRATE = "libuwebsockets-sys"
UWEBSOCKETS_VERSION = "0.0.10"
_INTERPRETERS = HERE.parent.parent / "tools" / "interpreters.py"


class NotInstalled(Exception):
    """A server can't be installed here, and why."""


@dataclass(frozen=True)
class Program:
    """Something that a server under test runs on."""

    name: str
    locate: Callable[[], str]
    """Path of what is run; empty when it is not there."""
    version: Callable[[], str]
    install: Callable[[], None]
    """Raises NotInstalled, OSError or CalledProcessError."""

    def missing(self) -> str:
        """Why it can't run here; empty when it can."""
        if self.locate():
            return ""
        reason = reasons().get(self.name)
        if reason:
            return f"could not be installed: {reason}"
        return f"not installed: python -m bench.peers install {self.name}"


def reasons() -> dict[str, str]:
    """Why programs could not be installed, by name."""
    try:
        found: dict[str, str] = json.loads(REASONS.read_text())
    except (OSError, ValueError):
        return {}
    return found


def _needs(*commands: str) -> None:
    if absent := [command for command in commands if not shutil.which(command)]:
        raise NotInstalled(f"there is no {' and no '.join(absent)}")


def _do(*command: str | Path, cwd: Path | None = None, **environment: str) -> None:
    subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
    )


@cache
def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


def _here(path: Path) -> Callable[[], str]:
    return lambda: str(path) if path.exists() else ""


def _installed(command: str, *others: Path) -> Callable[[], str]:
    def locate() -> str:
        found = shutil.which(command) or ""
        return found if all(other.exists() for other in others) else ""

    return locate


def _debian(*packages: str) -> Callable[[], None]:
    def install() -> None:
        _needs("apt-get")
        if os.geteuid() != 0:
            raise NotInstalled(f"run as root: apt-get install {' '.join(packages)}")
        _do("apt-get", "-qq", "-o", "Acquire::Retries=3", "update")
        command = ["apt-get", "-qq", "-y", "install", "--no-install-recommends", *packages]
        _do(*command, DEBIAN_FRONTEND="noninteractive")

    return install


# ---- Node.js ----


def _install_node() -> None:
    _needs("node", "npm")
    _do("npm", "ci", "--no-audit", "--no-fund", "--loglevel=error", cwd=NODE_FOLDER)


def node_package(name: str) -> Program:
    """A package of `node/package.json`."""
    folder = NODE_FOLDER / "node_modules" / name

    def version_of() -> str:
        package: dict[str, str] = json.loads((folder / "package.json").read_text())
        return f"{package['version']} on Node.js {_output('node', '--version').lstrip('v')}"

    return Program("node", _here(folder), version_of, _install_node)


NODE_MODULES = node_package("ws")
SOCKETIO_NODE = node_package("socket.io")

# ---- wse-server, in an environment of a newer CPython ----

_WSE = BUILD / "wse"


def _newer_python() -> str:
    found = _output(sys.executable, str(_INTERPRETERS)).splitlines()
    for line in found:
        name, path = line.split(" ", 1)
        if not name.endswith("t") and tuple(map(int, name.split("."))) >= (3, 12):
            return path
    raise NotInstalled("there is no CPython 3.12 or newer")


def _install_wse() -> None:
    _do(_newer_python(), "-m", "venv", _WSE)
    requirements = HERE / "requirements-3.12.txt"
    _do(_WSE / "bin" / "python", "-m", "pip", "install", "--quiet", "-r", requirements)


def _wse_version() -> str:
    code = (
        "import importlib.metadata as m, sys; "
        "print(m.version('wse-server'), sys.version.split()[0])"
    )
    release, python = _output(str(_WSE / "bin" / "python"), "-c", code).split()
    return f"{release} on CPython {python}"


def _locate_wse() -> str:
    python = _WSE / "bin" / "python"
    there = (
        any((_WSE / "lib").glob("python3*/site-packages/wse_server")) if python.exists() else False
    )
    return str(python) if there else ""


WSE = Program("wse", _locate_wse, _wse_version, _install_wse)

# ---- uWebSockets, from the sources in a Rust crate that binds it ----

_UWEBSOCKETS = BUILD / "uwebsockets"
_MANIFEST = f"""[package]
name = "fetch"
version = "0.0.0"
edition = "2021"

[dependencies]
{UWEBSOCKETS_CRATE} = "={UWEBSOCKETS_VERSION}"
"""


def _uwebsockets_sources() -> Path:
    """Folder with uWebSockets and uSockets; `UWEBSOCKETS_SRC` names one that is there already."""
    if given := os.environ.get("UWEBSOCKETS_SRC"):
        return Path(given)
    _needs("cargo")
    folder = _UWEBSOCKETS / "fetch"
    (folder / "src").mkdir(parents=True, exist_ok=True)
    (folder / "Cargo.toml").write_text(_MANIFEST)
    (folder / "src" / "lib.rs").write_text("")
    _do("cargo", "fetch", "--quiet", cwd=folder)
    command = ["cargo", "metadata", "--format-version=1", "--offline"]
    told = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    packages = {one["name"]: one["manifest_path"] for one in json.loads(told)["packages"]}
    return Path(packages[UWEBSOCKETS_CRATE]).parent / "uWebSockets"


def _install_uwebsockets() -> None:
    compiler, for_c = os.environ.get("CXX", "c++"), os.environ.get("CC", "cc")
    _needs(compiler, for_c)
    sources = _uwebsockets_sources()
    below = sources / "uSockets" / "src"
    fast = ["-O3", "-march=native", "-flto", "-DLIBUS_USE_OPENSSL", f"-I{below}", "-w"]
    objects = []
    for file in (*below.glob("*.c"), *below.glob("eventing/*.c"), *below.glob("crypto/*.c")):
        objects.append(_UWEBSOCKETS / f"{file.stem}.o")
        _do(for_c, "-std=gnu11", *fast, "-c", file, "-o", objects[-1])
    for file in below.glob("crypto/*.cpp"):
        objects.append(_UWEBSOCKETS / f"{file.stem}_cpp.o")
        _do(compiler, "-std=c++20", *fast, "-c", file, "-o", objects[-1])
    here = [HERE / "uwebsockets" / "server.cpp", *objects]
    target = _UWEBSOCKETS / "server"
    libraries = ["-lssl", "-lcrypto", "-lz", "-lpthread"]
    _do(compiler, "-std=c++20", *fast, f"-I{sources / 'src'}", *here, *libraries, "-o", target)


UWEBSOCKETS = Program(
    "uwebsockets",
    _here(_UWEBSOCKETS / "server"),
    lambda: f"of {UWEBSOCKETS_CRATE} {UWEBSOCKETS_VERSION}",
    _install_uwebsockets,
)

# ---- gateways ----

_GO = BUILD / "go"


def _install_centrifugo() -> None:
    _needs("go")
    module = f"github.com/centrifugal/centrifugo/v6@v{CENTRIFUGO_VERSION}"
    _do("go", "install", module, GOBIN=str(_GO), GOFLAGS="-trimpath")


def _first_number(*command: str) -> str:
    words = _output(*command).replace("/", " ").replace(",", " ").split()
    return next((word.lstrip("v") for word in words if word.lstrip("v")[:1].isdigit()), "unknown")


CENTRIFUGO = Program(
    "centrifugo",
    _here(_GO / "centrifugo"),
    lambda: CENTRIFUGO_VERSION,
    _install_centrifugo,
)
NCHAN_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
NGINX = Program(
    "nchan",
    _installed("nginx", NCHAN_MODULE),
    lambda: _first_number("nginx", "-v"),
    _debian("nginx-light", "libnginx-mod-nchan"),
)
PUSHPIN = Program(
    "pushpin",
    _installed("pushpin"),
    lambda: _first_number("pushpin", "--version"),
    _debian("pushpin"),
)


# ---- packages of this interpreter, all at once ----


def _install_packages() -> None:
    requirements = HERE / "requirements.txt"
    _do(sys.executable, "-m", "pip", "install", "--quiet", "-r", requirements)


def _packages_there() -> str:
    for line in (HERE / "requirements.txt").read_text().splitlines():
        name, _, wanted = line.partition("==")
        try:
            if wanted and version(name) != wanted:
                return ""
        except PackageNotFoundError:
            return ""
    return sys.executable


PACKAGES = Program("packages", _packages_there, lambda: "as pinned", _install_packages)
PROGRAMS = {
    program.name: program
    for program in (PACKAGES, NODE_MODULES, WSE, UWEBSOCKETS, CENTRIFUGO, NGINX, PUSHPIN)
}
