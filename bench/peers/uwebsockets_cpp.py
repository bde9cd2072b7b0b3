"""uWebSockets in C++: `uwebsockets/server.cpp`."""

import os
import sys
from pathlib import Path

from bench.peers._programs import UWEBSOCKETS
from bench.peers._run import parse

if __name__ == "__main__":
    options = parse()
    path = UWEBSOCKETS.locate()
    if not path:
        sys.exit(UWEBSOCKETS.missing())
    arguments = ["--port", str(options.port)]
    arguments += ["--broadcast"] * options.broadcast + ["--deflate"] * options.deflate
    if options.tls:
        arguments += ["--tls", options.tls, "--key", str(Path(options.tls).with_name("key.pem"))]
    os.execv(path, [path, *arguments])
