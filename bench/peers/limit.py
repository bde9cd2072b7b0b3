"""The limit in bare C: `native/echo_limit.c`, or `native/send_limit.c` for broadcast."""

import os

from bench.native import program
from bench.peers._run import BACKLOG, parse

if __name__ == "__main__":
    options = parse()
    path = program("send_limit" if options.broadcast else "echo_limit")
    os.execv(path, [path, "--port", str(options.port), "--backlog", str(BACKLOG)])
