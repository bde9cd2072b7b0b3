"""wse-server, a gateway's engine in Rust: its callbacks drained in batches, as its docs advise.

It needs a CPython of 3.12 or newer, and runs under that without the rest of this package.
"""

import os
import sys

_SERVER = """
import sys, time
from wse_server import RustWSEServer

port, max_size = int(sys.argv[1]), int(sys.argv[2])
server = RustWSEServer(
    "127.0.0.1", port, max_connections=20000, max_message_size=max_size,
    rate_limit_capacity=1e12, rate_limit_refill=1e12, max_inbound_queue_size=1 << 20,
)
server.enable_drain_mode()
server.start()
while True:
    for event in server.drain_inbound(256, 1000):
        if event[0] in ("msg", "raw"):
            server.broadcast_all(event[2] if isinstance(event[2], str) else str(event[2]))
"""

if __name__ == "__main__":
    from bench.peers._programs import WSE
    from bench.peers._run import MAX_SIZE, parse

    port = str(parse().port)
    python = WSE.locate()
    if not python:
        sys.exit(WSE.missing())
    os.execv(python, [python, "-c", _SERVER, port, str(MAX_SIZE)])
