"""Clients from npm: `ws`, `centrifuge`, our own client.js, and Chromium on our pages.

Each is a file of tests for Node's own test runner; a failure here shows that runner's output.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import fastws
from examples.echo import Echo
from tests.fastws.certificates import authority_file, server_context

HERE = Path(__file__).parent
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")
SET_UP = "tools/setup.sh browser installs it"

pytestmark = pytest.mark.node


@functools.cache
def node() -> str:
    """Node.js with its packages; without them the test is skipped."""
    found = shutil.which("node")
    if found is None:
        pytest.skip(f"Node.js is missing; {SET_UP}")
    version = subprocess.run([found, "--version"], capture_output=True, text=True).stdout.strip()
    if int(version.lstrip("v").partition(".")[0]) < 18:
        pytest.skip(f"Node.js is {version}, 18 or newer is needed")
    if not (HERE / "node_modules").is_dir():
        pytest.skip(f"tests/e2e/node_modules is missing; {SET_UP}")
    return found


def chromium() -> str:
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip(f"Chromium is missing; {SET_UP}")
    return found


async def run(file: str, **environment: str) -> None:
    """Run a file of tests in Node.js, and fail with its output."""
    process = await asyncio.create_subprocess_exec(
        node(),
        "--test",
        file,
        cwd=HERE,
        env={**os.environ, "PYTHON": sys.executable, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = await process.communicate()
    except BaseException:
        # With all that it has started: a gateway, a browser.
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    if process.returncode:
        pytest.fail(output.decode(errors="replace"), pytrace=False)


class EchoOrClose(Echo):
    """Closes when it is told to."""

    def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
        if isinstance(message, str) and message.startswith("close "):
            _, code, reason = message.split(" ", 2)
            ws.close(int(code), reason)
        else:
            super().on_message(ws, message)


@pytest.mark.usefixtures("loop_kind")
async def test_ws_against_an_echo_server(carrier: str) -> None:
    async with fastws.serve(EchoOrClose, "127.0.0.1", 0, carrier=carrier) as server:
        port = server.sockets[0].getsockname()[1]
        await run("ws.test.mjs", FASTWS_URL=f"ws://127.0.0.1:{port}/")


@pytest.mark.usefixtures("loop_kind")
async def test_ws_over_tls_against_an_echo_server(carrier: str, tmp_path: Path) -> None:
    async with fastws.serve(
        EchoOrClose, "127.0.0.1", 0, carrier=carrier, ssl=server_context()
    ) as server:
        port = server.sockets[0].getsockname()[1]
        await run(
            "ws.test.mjs",
            FASTWS_URL=f"wss://127.0.0.1:{port}/",
            NODE_EXTRA_CA_CERTS=str(authority_file(tmp_path)),
        )


@pytest.mark.time_limit(60)
async def test_centrifuge_against_the_gateway() -> None:
    await run("centrifuge.test.mjs")


@pytest.mark.time_limit(60)
async def test_centrifuge_with_tokens_permissions_and_recovery() -> None:
    await run("identity.test.mjs")


@pytest.mark.time_limit(60)
async def test_centrifuge_with_deltas() -> None:
    await run("deltas.test.mjs")


@pytest.mark.time_limit(60)
async def test_centrifuge_with_a_backend() -> None:
    await run("backend.test.mjs")


async def test_our_client_on_a_clock_of_its_own() -> None:
    await run("client.test.mjs")


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.time_limit(180)
async def test_two_tabs_on_the_demo_page() -> None:
    await run("demo.test.mjs", CHROMIUM=chromium())


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.time_limit(180)
async def test_the_admin_page() -> None:
    await run("admin.test.mjs", CHROMIUM=chromium())


TAKEOVER = fastws.Deflate(server_no_context_takeover=False, client_no_context_takeover=False)


@pytest.mark.usefixtures("loop_kind")
@pytest.mark.parametrize("deflate", [fastws.Deflate(), TAKEOVER], ids=["alone", "takeover"])
async def test_ws_and_permessage_deflate(carrier: str, deflate: fastws.Deflate) -> None:
    async with fastws.serve(
        EchoOrClose, "127.0.0.1", 0, carrier=carrier, compression=deflate
    ) as server:
        port = server.sockets[0].getsockname()[1]
        await run("deflate.test.mjs", FASTWS_URL=f"ws://127.0.0.1:{port}/")


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.time_limit(120)
async def test_chromium_against_echo_servers_plain_and_over_tls() -> None:
    tls = server_context()
    small = fastws.Deflate(server_max_window_bits=9, client_max_window_bits=9)
    async with contextlib.AsyncExitStack() as servers:
        urls = []
        for deflate in (fastws.Deflate(), TAKEOVER, small):
            for scheme, ssl in (("ws", None), ("wss", tls)):
                server = await servers.enter_async_context(
                    fastws.serve(Echo, "127.0.0.1", 0, compression=deflate, ssl=ssl)
                )
                urls.append(f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        await run("chromium.test.mjs", CHROMIUM=chromium(), FASTWS_URLS=json.dumps(urls))
