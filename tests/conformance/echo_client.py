"""The client under test: runs every case that a fuzzing server has, and sends every message back.

``python -m tests.conformance.echo_client ws://127.0.0.1:9001 --carrier reactor``: a process of its
own, as ``echo_server`` is. Prints the name of the codec.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import fastws
from tests.conformance.autobahn import MAX_FRAGMENTS, MAX_SIZE, PARALLEL
from tests.conformance.echo_server import Echo, compression, echo


async def run_case(uri: str, style: str, options: dict[str, Any]) -> None:
    if style == "listener":
        ws = await fastws.connect(uri, listener=Echo, **options)
        await ws.wait_closed()
        return
    async with fastws.connect(uri, **options) as ws:
        try:
            await echo(ws)
        except fastws.ConnectionClosed:
            pass  # how it ends is the server's to judge


async def run(uri: str, carrier: str, style: str, forget: bool) -> None:
    options: dict[str, Any] = {
        "carrier": carrier,
        "compression": compression(client_no_context_takeover=forget),
        "proxy": None,
        "open_timeout": 120.0,  # the suite is busy with other cases
        "ping_interval": None,  # kosoku takes a ping for the end of a case
        "max_size": MAX_SIZE,
        "max_fragments": MAX_FRAGMENTS,
    }
    async with fastws.connect(f"{uri}/getCaseCount", **options) as ws:
        count = int(await ws.recv())
    numbers = iter(range(1, count + 1))

    async def run_cases() -> None:
        for number in numbers:
            await run_case(f"{uri}/runCase?case={number}&agent=fastws", style, options)

    await asyncio.gather(*(run_cases() for _ in range(PARALLEL)))
    async with fastws.connect(f"{uri}/updateReports?agent=fastws", **options) as ws:
        await ws.wait_closed()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("uri")
    parser.add_argument("--carrier", choices=["reactor", "asyncio"], default="asyncio")
    parser.add_argument("--style", choices=["listener", "coroutine"], default="listener")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--forget", action="store_true", help="offer client_no_context_takeover")
    options = parser.parse_args()
    factory = None
    if options.loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    print(fastws.codec_name, flush=True)
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(run(options.uri, options.carrier, options.style, options.forget))


if __name__ == "__main__":
    main()
