"""The server under test: sends every message back.

``python -m tests.conformance.echo_server --carrier reactor --style listener``: a process of its
own, so that a crash fails a test and not the test run, and so that ``FASTWS_PURE`` chooses the
codec. Prints the port and the name of the codec, and ends when its standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import Any

import fastws


class Echo(fastws.Listener):
    def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
        ws.send(message)


async def echo(ws: fastws.Connection) -> None:
    async for message in ws:
        await ws.send(message)


def compression(**takeover: bool) -> fastws.Deflate:
    """Compress whatever gets shorter by it, however short it is."""
    return fastws.Deflate(threshold=0, **takeover)


async def run(style: str, **options: Any) -> None:
    handler = Echo if style == "listener" else echo
    async with fastws.serve(
        handler,
        "127.0.0.1",
        0,
        server_header="fastws",
        ping_interval=None,  # kosoku takes a ping for the end of a case
        **options,
    ) as server:
        print(server.sockets[0].getsockname()[1], fastws.codec_name, flush=True)
        await asyncio.to_thread(sys.stdin.buffer.read)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--carrier", choices=["reactor", "asyncio"], default="asyncio")
    parser.add_argument("--style", choices=["listener", "coroutine"], default="listener")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--max-size", type=int, default=2**20, help="bytes in a message")
    parser.add_argument("--max-fragments", type=int, default=4096)
    parser.add_argument(
        "--context",
        action="store_true",
        help="let messages refer to those before them, unless the client objects",
    )
    options = parser.parse_args()
    keep = {"server_no_context_takeover": False, "client_no_context_takeover": False}
    factory = None
    if options.loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(
            run(
                options.style,
                carrier=options.carrier,
                compression=compression(**keep if options.context else {}),
                max_size=options.max_size,
                max_fragments=options.max_fragments,
            )
        )


if __name__ == "__main__":
    main()
