"""A backend that calls a gateway's HTTP API as fast as the gateway answers.

It is Python, so that calls/s say little; the CPU that a call costs the gateway is what to compare.
"""

import json
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from bench.process import BenchError

API_KEY = "key of the benchmark"
CONNECTIONS = 8


def request(port: int, path: str, body: Mapping[str, object]) -> bytes:
    """A call of the API, whole."""
    content = json.dumps(body, separators=(",", ":")).encode()
    head = (
        f"POST /api/{path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-API-Key: {API_KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def call_for(seconds: float, pid: int, port: int, call: bytes) -> tuple[int, float, float]:
    """Makes the same call over and over on eight connections that are kept.

    Returns the number of calls, the seconds that they took, and those of the gateway's CPU (user
    and system, all threads of process `pid`). Raises BenchError for an answer that is no success.
    """
    clock = ~pid << 3 | 2  # Linux: CPUCLOCK_SCHED of a process, as of clock_getcpuclockid(3)
    with ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            for _ in range(CONNECTIONS)
        ]
        _call(clients, call)
        calls, start, cpu = 0, time.monotonic(), time.clock_gettime(clock)
        while (passed := time.monotonic() - start) < seconds:
            _call(clients, call)
            calls += len(clients)
        return calls, passed, time.clock_gettime(clock) - cpu


def _call(clients: Sequence[socket.socket], call: bytes) -> None:
    for client in clients:
        client.sendall(call)
    for client in clients:
        _take_answer(client)


def _take_answer(client: socket.socket) -> None:
    data = b""
    while not (found := data.partition(b"\r\n\r\n"))[1]:
        data += _more(client)
    head, _, body = found
    _, given, length = head.lower().partition(b"\r\ncontent-length:")
    while len(body) < int(length.split()[0]) if given else not body.endswith(b"0\r\n\r\n"):
        body += _more(client)
    if not head.startswith(b"HTTP/1.1 200") or b'"error"' in body:
        raise BenchError(f"the API answered {head[:40]!r}: {body[:200]!r}")


def _more(client: socket.socket) -> bytes:
    try:
        data = client.recv(65536)
    except OSError as error:
        raise BenchError(f"the API did not answer: {error}") from error
    if not data:
        raise BenchError("the API closed the connection")
    return data
