"""Starts granian with one worker, on uvloop, access log off, which is its default."""

import os
import sys

from bench.peers._run import BACKLOG, HOST, parse


def run(interface: str, echo: str, to_all: str) -> None:
    """Becomes granian; `echo` and `to_all` are applications, as `module:name`."""
    options = parse()
    told = {
        "interface": interface,
        "host": HOST,
        "port": options.port,
        "workers": 1,
        "loop": "uvloop",
        "http": "1",
        "backlog": BACKLOG,
        # It counts open WebSockets as requests.
        "backpressure": 20_000,
        "log-level": "warning",
    }
    arguments = [f"--{key}={value}" for key, value in told.items()]
    if options.tls:
        key = os.path.join(os.path.dirname(options.tls), "key.pem")
        arguments += [f"--ssl-certificate={options.tls}", f"--ssl-keyfile={key}"]
    application = to_all if options.broadcast else echo
    os.execv(sys.executable, [sys.executable, "-m", "granian", *arguments, application])
