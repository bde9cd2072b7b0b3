"""Centrifugo: one node, in memory; anyone may connect, subscribe and publish."""

import json
import sys
from pathlib import Path
from tempfile import mkdtemp

from bench.peers._programs import CENTRIFUGO
from bench.peers._run import HOST, MAX_SIZE, parse
from bench.peers._several import become

if __name__ == "__main__":
    path = CENTRIFUGO.locate()
    if not path:
        sys.exit(CENTRIFUGO.missing())
    options = parse()
    told = {
        "http_server": {"address": HOST},
        "client": {
            "insecure": True,
            "ping_interval": f"{options.ping}s",
            "pong_timeout": "8s" if options.ping > 10 else "5s",
        },
        "websocket": {"message_size_limit": MAX_SIZE},
        "log": {"level": "error"},
    }
    config = Path(mkdtemp(prefix="bench-")) / "centrifugo.json"
    config.write_text(json.dumps(told))
    become(
        options.workers,
        options.port,
        lambda port: [path, "--config", str(config), "--http_server.port", str(port)],
    )
