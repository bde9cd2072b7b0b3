"""Centrifugo: one node, in memory; anyone may connect, subscribe and publish."""

import json
import os
import sys
from pathlib import Path
from tempfile import mkdtemp

from bench.peers._programs import CENTRIFUGO
from bench.peers._run import HOST, MAX_SIZE, parse

if __name__ == "__main__":
    path = CENTRIFUGO.locate()
    if not path:
        sys.exit(CENTRIFUGO.missing())
    options = parse()
    told = {
        "http_server": {"address": HOST, "port": str(options.port)},
        "client": {"insecure": True, "ping_interval": f"{options.ping}s", "connection_limit": 0},
        "websocket": {"message_size_limit": MAX_SIZE},
        "log": {"level": "error"},
    }
    config = Path(mkdtemp(prefix="bench-")) / "centrifugo.json"
    config.write_text(json.dumps(told))
    os.execv(path, [path, "--config", str(config)])
