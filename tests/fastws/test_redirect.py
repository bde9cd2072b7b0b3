"""Redirects: followed within bounds, and never with credentials for another origin."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fastws
from fastws._redirect import MAX_REDIRECTS, redirect_target
from fastws.http import Headers, Response
from fastws.uri import basic_credentials
from tests.fastws.client import serve, turns, url
from tests.fastws.raw_server import no_proxy

pytestmark = pytest.mark.usefixtures("loop_kind", "no_proxy")

__all__ = ["no_proxy"]

CREDENTIALS = {"Authorization": "Bearer token", "Cookie": "a=1", "Proxy-Authorization": "x"}
NAME = {"Host": "a name of one origin"}


def redirecting(
    where: Callable[[str], str | None], status: int = 302
) -> Callable[[fastws.ServerConnection, fastws.Request], fastws.Response | None]:
    """A ``process_request`` that answers a path with a redirect to ``where(path)``."""

    def process_request(
        ws: fastws.ServerConnection, request: fastws.Request
    ) -> fastws.Response | None:
        target = where(request.path)
        if target is None:
            return None
        response = ws.respond(status, "over there\n")
        response.headers["Location"] = target
        return response

    return process_request


async def tell_request(ws: fastws.ServerConnection) -> None:
    """Say what was asked for, and with which headers."""
    assert ws.request.headers["Host"] not in NAME.values()
    await ws.send(ws.request.path)
    await ws.send("\n".join(name.lower() for name in ws.request.headers))


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("target", ["/there?x=1", "there?x=1", "./there?x=1"])
async def test_redirects_on_the_same_origin_keep_the_headers(
    carrier: str, status: int, target: str
) -> None:
    process = redirecting(lambda path: target if path == "/here" else None, status)
    async with serve(tell_request, carrier, process_request=process) as server:
        connecting = fastws.connect(
            url(server, "/here"), carrier=carrier, additional_headers=CREDENTIALS
        )
        for _ in range(2):  # the second time it begins at the beginning
            async with connecting as ws:
                assert await ws.recv() == "/there?x=1"
                names = str(await ws.recv()).split("\n")
                assert {name.lower() for name in CREDENTIALS} <= set(names)


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_redirects_on_the_same_origin_keep_the_credentials_of_the_uri(
    carrier: str, scheme: str, absolute: bool
) -> None:
    async def tell_credentials(ws: fastws.ServerConnection) -> None:
        await ws.send(ws.request.headers["Authorization"])

    def where(path: str) -> str | None:
        following = {"/1": "/2", "/2": "/3"}.get(path)
        if following is None or not absolute:
            return following
        return url(server, following).replace("ws://", f"{scheme}://")

    async with serve(tell_credentials, carrier, process_request=redirecting(where)) as server:
        uri = url(server, "/1").replace("ws://", "ws://user:p%40ss@")
        async with fastws.connect(uri, carrier=carrier) as ws:
            assert await ws.recv() == basic_credentials("user", "p@ss")


async def test_another_origin_is_not_sent_credentials(carrier: str) -> None:
    async with serve(tell_request, carrier) as other:
        target = url(other, "/there")
        process = redirecting(lambda _: target)
        async with serve(tell_request, carrier, process_request=process) as server:
            uri = url(server).replace("ws://", "ws://user:secret@")
            headers = {**CREDENTIALS, **NAME, "X-Mine": "yes"}
            for options in ({"additional_headers": headers}, {}):
                async with fastws.connect(uri, carrier=carrier, **options) as ws:
                    assert await ws.recv() == "/there"
                    names = str(await ws.recv()).split("\n")
                    assert not {name.lower() for name in CREDENTIALS} & set(names)
                    assert ("x-mine" in names) is bool(options)


async def test_coming_back_does_not_bring_credentials_back(carrier: str) -> None:
    targets: dict[str, str] = {}
    async with serve(
        tell_request, carrier, process_request=redirecting(lambda _: targets["other"])
    ) as other:
        process = redirecting(lambda path: url(other) if path == "/here" else None)
        async with serve(tell_request, carrier, process_request=process) as server:
            targets["other"] = url(server, "/back")
            connecting = fastws.connect(
                url(server, "/here"), carrier=carrier, additional_headers=CREDENTIALS
            )
            async with connecting as ws:
                assert await ws.recv() == "/back"
                assert "cookie" not in str(await ws.recv())


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("http://h/x", "ws://h/x"),
        ("HTTPS://h/x", "wss://h/x"),
        ("wss://h/x", "wss://h/x"),
        ("//h:81/x", "ws://h:81/x"),
        ("/x", "ws://host:82/x"),
        ("?q", "ws://host:82/a/b?q"),
        ("http://h/x?q#top", "ws://h/x?q"),
        ("/x#", "ws://host:82/x"),
    ],
)
def test_a_location_is_taken_for_that_of_a_websocket(location: str, target: str) -> None:
    response = Response(302, "Found", Headers(Location=location))
    assert redirect_target("ws://host:82/a/b", response) == target


@pytest.mark.parametrize(
    "response",
    [
        Response(200, "OK", Headers(Location="/x")),
        Response(304, "Not Modified", Headers(Location="/x")),
        Response(302, "Found"),
        Response(302, "Found", Headers([("Location", "/x"), ("Location", "/y")])),
    ],
)
def test_what_is_no_redirect_is_a_refusal(response: Response) -> None:
    assert redirect_target("ws://host/", response) is None


@pytest.mark.parametrize("target", ["ftp://h/", "ws://h:99999/", "/a b"])
async def test_a_redirect_to_nowhere(carrier: str, target: str) -> None:
    process = redirecting(lambda _: target)
    async with serve(tell_request, carrier, process_request=process) as server:
        with pytest.raises(fastws.InvalidURI):
            await fastws.connect(url(server), carrier=carrier)


async def test_redirects_are_followed_ten_times(carrier: str) -> None:
    asked = []

    def where(path: str) -> str | None:
        asked.append(path)
        count = int(path[1:])
        return f"/{count - 1}" if count else None

    async with serve(tell_request, carrier, process_request=redirecting(where)) as server:
        async with fastws.connect(url(server, f"/{MAX_REDIRECTS}"), carrier=carrier) as ws:
            assert await ws.recv() == "/0"
        asked.clear()
        with pytest.raises(fastws.SecurityError, match="more than 10"):
            await fastws.connect(url(server, "/100"), carrier=carrier)
        assert len(asked) == MAX_REDIRECTS + 1


async def test_redirects_count_for_open_timeout(carrier: str) -> None:
    async def slow(ws: Any, request: fastws.Request) -> fastws.Response:
        await asyncio.sleep(0.06)
        response: fastws.Response = ws.respond(302, "on and on")
        response.headers["Location"] = "/"
        return response

    async with serve(tell_request, carrier, process_request=slow) as server:
        with pytest.raises(TimeoutError):
            await fastws.connect(url(server), carrier=carrier, open_timeout=0.2)
        await turns(10)  # asyncio may be in the middle of accepting the next connection


async def test_arguments_for_one_origin_are_not_used_for_another(
    carrier: str, tmp_path: Path
) -> None:
    async with serve(tell_request, carrier) as other:
        process = redirecting(lambda path: url(other) if path == "/" else "ws://one/")
        async with serve(tell_request, carrier, process_request=process) as server:
            host, port = server.sockets[0].getsockname()
            with pytest.raises(ValueError, match="another origin"):
                await fastws.connect("ws://one/", carrier=carrier, host=host, port=port)
            sock = socket.create_connection((host, port))
            with pytest.raises(ValueError, match="used up"):
                await fastws.connect("ws://one/same", carrier=carrier, sock=sock)
        path = str(tmp_path / "socket")
        async with fastws.unix_serve(
            tell_request, path, carrier=carrier, process_request=redirecting(lambda _: url(other))
        ):
            with pytest.raises(ValueError, match="another origin"):
                await fastws.unix_connect(path, carrier=carrier)
