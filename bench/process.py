"""Server and load processes: started on a core of their own, measured, and surely ended."""

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from bench.certificate import certificate
from bench.native import program

SERVER_CORE, LOAD_CORE = 0, 1
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """A server did not start, or a measurement could not be made."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _start(
    command: Sequence[str],
    core: int,
    stderr: IO[bytes] | int | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    allowed = sorted(os.sched_getaffinity(0))
    chosen = allowed[core % len(allowed)]
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    def in_child() -> None:
        os.sched_setaffinity(0, {chosen})
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    return subprocess.Popen(
        command,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        preexec_fn=in_child,  # noqa: PLW1509  this program has one thread
    )


def descendants(pid: int) -> list[int]:
    """The process and every process below it."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


@contextlib.contextmanager
def server(command: Sequence[str], port: int, log: Path, seconds: float = 30) -> Iterator[int]:
    """Runs a server on the first core until the block ends; yields its process id.

    Waits until it accepts connections on the port, at most the given time. Its output goes to the
    file `log`. Raises BenchError when it does not start.
    """
    with log.open("wb") as output:
        process = _start(command, SERVER_CORE, stderr=output)
        try:
            _wait_for_port(process, port, log, seconds)
            yield process.pid
        finally:
            for pid in reversed(descendants(process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


def _wait_for_port(process: subprocess.Popen[bytes], port: int, log: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    said = log.read_text(errors="replace").strip().splitlines()
    raise BenchError(f"the server did not start: {said[-1] if said else 'it said nothing'}")


def wait_for_upgrade(port: int, path: str, seconds: float = 20) -> None:
    """Waits until a server agrees to a WebSocket: some consist of several processes.

    Raises BenchError when it does not.
    """
    request = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n"
    )
    deadline = time.monotonic() + seconds
    answer = b""
    while time.monotonic() < deadline:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), 2) as client,
        ):
            client.sendall(request.encode())
            answer = client.recv(1000)
            if answer.startswith(b"HTTP/1.1 101"):
                return
        time.sleep(0.1)
    said = answer.split(b"\r\n")[0].decode(errors="replace")
    raise BenchError(f"no WebSocket at {path}: {said or 'no answer'}")


def peer_command(
    name: str, port: int, role: str = "echo", features: Sequence[str] = (), *more: str
) -> list[str]:
    """Command line of a server of `bench.peers`: its role, and what it is to have besides: `tls`,
    `deflate`, and further arguments.
    """
    role = "idle" if role == "heartbeat" else role
    command = [sys.executable, "-m", f"bench.peers.{name}", "--port", str(port), "--role", role]
    command += more
    if "tls" in features:
        command += ["--tls", certificate()]
    if "deflate" in features:
        command.append("--deflate")
    return command


def _load_command(port: int, pid: int, arguments: Sequence[str]) -> list[str]:
    command = [program("load"), "--port", str(port), *arguments]
    for one in descendants(pid):
        command += ["--pid", str(one)]
    return command


class Load:
    """A running load generator that prints an event and waits (`--mode idle`)."""

    def __init__(self, port: int, pid: int, arguments: Sequence[str]) -> None:
        self._process = _start(
            _load_command(port, pid, arguments),
            LOAD_CORE,
            stderr=subprocess.PIPE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> "Load":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def event(self) -> dict[str, Any]:
        """The next line it prints. Raises BenchError when it has ended."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(self._process.stderr.read().decode(errors="replace").strip())
        event: dict[str, Any] = json.loads(line)
        return event

    def finish(self) -> dict[str, Any]:
        """Tells it to end, and returns its result."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.stdin = None
        return self.event()


def run_load(port: int, pid: int, arguments: Sequence[str], seconds: float) -> dict[str, Any]:
    """Runs the load generator on the second core to its end; returns its result.

    Raises BenchError when it fails, finds a wrong echo, or takes longer than the given time.
    """
    process = _start(
        _load_command(port, pid, arguments),
        LOAD_CORE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise BenchError(f"no result after {seconds:.0f} s") from None
    finally:
        process.kill()
        process.wait()
    message = errors.decode(errors="replace").strip().splitlines()
    if process.returncode != 0:
        raise BenchError("; ".join(message[-2:]) or f"load ended with {process.returncode}")
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    if result.get("messages") == 0 or result.get("handshakes") == 0:
        raise BenchError("nothing came back within the measured time")
    if result["mismatches"] or result["lost"] or result["failures"]:
        counts = {key: result[key] for key in ("mismatches", "lost", "failures")}
        raise BenchError(f"{counts}; {'; '.join(message[:2])}")
    return result


def load_core() -> int:
    """The core of the load generator."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[LOAD_CORE % len(allowed)]


def peak_memory(pid: int) -> int:
    """The most that a process and each below it have had resident, in bytes (`VmHWM`)."""
    total = 0
    for one in descendants(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{one}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1]) * 1024
    return total


def memory(pid: int) -> dict[str, int]:
    """Pss and private memory of a process and all below it, in bytes (`smaps_rollup`)."""
    total = {"pss": 0, "private": 0}
    for one in descendants(pid):
        for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()[1:]:
            key, value = line.split()[:2]
            if key == "Pss:":
                total["pss"] += int(value) * 1024
            elif key in ("Private_Clean:", "Private_Dirty:"):
                total["private"] += int(value) * 1024
    return total
