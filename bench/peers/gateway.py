"""The gateway as anybody starts it, with default settings."""

import os
import sys

from bench.peers._run import parse

if __name__ == "__main__":
    options = parse()
    told = ["serve", "--dev", "--port", str(options.port), "--workers", str(options.workers)]
    if options.ping != 25:
        os.environ["FASTWS_CLIENT_PING_INTERVAL"] = f"{options.ping}s"
        os.environ["FASTWS_CLIENT_PONG_TIMEOUT"] = "2s"
    os.execv(sys.executable, [sys.executable, "-m", "gateway", *told])
