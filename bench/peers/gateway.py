"""The gateway as anybody starts it: one process, default settings."""

import os
import sys

from bench.peers._run import parse

if __name__ == "__main__":
    port = str(parse().port)
    os.execv(sys.executable, [sys.executable, "-m", "gateway", "serve", "--dev", "--port", port])
