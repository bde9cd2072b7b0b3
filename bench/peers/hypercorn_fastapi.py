"""FastAPI under hypercorn, on uvloop, access log off, which is its default."""

import asyncio
from typing import Any, cast

import uvloop
from hypercorn.asyncio import serve
from hypercorn.config import Config

from bench.peers._fastapi import app
from bench.peers._run import BACKLOG, HOST, MAX_SIZE, parse

if __name__ == "__main__":
    options = parse()
    config = Config()
    config.bind = [f"{HOST}:{options.port}"]
    config.backlog = BACKLOG
    config.websocket_max_message_size = MAX_SIZE
    config.loglevel = "WARNING"
    if options.tls:
        config.certfile = config.keyfile = options.tls
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(serve(cast(Any, app), config))
