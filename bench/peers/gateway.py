"""The gateway as anybody starts it, with default settings.

Several workers are as many gateways with the embedded engine, each on a port of its own.
"""

import os
import sys

from bench.peers._run import parse
from bench.peers._several import become

if __name__ == "__main__":
    options = parse()
    if options.ping != 25:
        os.environ["FASTWS_CLIENT_PING_INTERVAL"] = f"{options.ping}s"
        os.environ["FASTWS_CLIENT_PONG_TIMEOUT"] = "5s"
    become(
        options.workers,
        options.port,
        lambda port: [sys.executable, "-m", "gateway", "serve", "--dev", "--port", str(port)],
    )
