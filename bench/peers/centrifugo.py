"""Centrifugo: one node, in memory; anyone may connect, subscribe and publish."""

import json
import sys
from pathlib import Path
from tempfile import mkdtemp

from bench.backend import API_KEY
from bench.dialects import TOKEN_SECRET
from bench.peers._programs import CENTRIFUGO
from bench.peers._run import HOST, MAX_SIZE, parse
from bench.peers._several import become

if __name__ == "__main__":
    path = CENTRIFUGO.locate()
    if not path:
        sys.exit(CENTRIFUGO.missing())
    options = parse()
    told: dict[str, dict[str, object]] = {
        "http_server": {"address": HOST},
        "client": {
            "insecure": not options.tokens,
            "ping_interval": f"{options.ping}s",
            "pong_timeout": "8s" if options.ping > 10 else "5s",
        },
        "websocket": {"message_size_limit": MAX_SIZE},
        "log": {"level": "error"},
    }
    if options.tokens:
        told["client"]["token"] = {"hmac_secret_key": TOKEN_SECRET}
        told["http_api"] = {"key": API_KEY}
        channel = {"presence": True, "history_size": 100, "history_ttl": "10m"}
        told["channel"] = {"without_namespace": {**channel, "allow_subscribe_for_client": True}}
    config = Path(mkdtemp(prefix="bench-")) / "centrifugo.json"
    config.write_text(json.dumps(told))
    become(
        options.workers,
        options.port,
        lambda port: [path, "--config", str(config), "--http_server.port", str(port)],
    )
