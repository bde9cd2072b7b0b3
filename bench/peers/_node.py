"""Starts a server of `node/` with what it is asked to do as JSON."""

import json
import os
import sys

from bench.peers._programs import NODE_FOLDER, NODE_MODULES
from bench.peers._run import BACKLOG, MAX_SIZE, parse


def run(script: str) -> None:
    """Becomes Node.js."""
    if not NODE_MODULES.locate():
        sys.exit(NODE_MODULES.missing())
    options = parse()
    told = {
        "port": options.port,
        "backlog": BACKLOG,
        "maxSize": MAX_SIZE,
        "broadcast": options.broadcast,
        "tls": options.tls,
        "deflate": options.deflate,
    }
    os.execvp("node", ["node", str(NODE_FOLDER / script), json.dumps(told)])
