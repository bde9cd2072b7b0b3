"""``basic_auth`` as ``process_request`` (RFC 7617)."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import websockets

import fastws
from fastws import basic_auth
from tests.fastws.client import Peer, head, serve, url


async def who(ws: fastws.ServerConnection) -> None:
    await ws.send(ws.username)


def header(text: str, scheme: str = "Basic") -> tuple[str, str]:
    return "Authorization", f"{scheme} {base64.b64encode(text.encode()).decode()}"


async def in_coroutine(username: str, password: str) -> bool:
    return username == password


@pytest.mark.parametrize(
    ("options", "credentials"),
    [
        ({"credentials": ("ann", "se:cret")}, "ann:se:cret"),
        ({"credentials": [("bob", "x"), ("ann", "ŵ")]}, "ann:ŵ"),
        ({"check_credentials": lambda name, password: name == password}, "ann:ann"),
        ({"check_credentials": in_coroutine}, "ann:ann"),
    ],
)
async def test_who_gives_valid_credentials_is_known_by_name(
    carrier: str, options: Any, credentials: str
) -> None:
    async with serve(who, carrier, process_request=basic_auth("r", **options)) as server:
        for scheme in ("Basic", "basic"):
            async with await Peer.open(server, headers=[header(credentials, scheme)]) as peer:
                assert await peer.message() == "ann"


async def test_a_client_of_websockets_gives_those_of_its_uri() -> None:
    auth = basic_auth(credentials=("ann", "secret"))
    async with serve(who, "auto", process_request=auth) as server:
        uri = url(server).replace("ws://", "ws://ann:secret@")
        async with websockets.connect(uri, proxy=None) as client:
            assert await client.recv() == "ann"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [header("ann:wrong")],
        [header("eve:secret")],
        [header("eve:")],
        [header("ann")],
        [header("ann:secret", "Bearer")],
        [("Authorization", "Basic")],
        [("Authorization", "Basic !!!")],
        [("Authorization", "Basic /w==")],
        [header("ann:secret"), header("ann:secret")],
    ],
)
async def test_everyone_else_gets_401_and_is_told_the_realm(headers: Any) -> None:
    auth = basic_auth("the realm", ("ann", "secret"))
    async with (
        serve(who, "auto", process_request=auth) as server,
        await Peer.connect(server) as peer,
    ):
        await peer.send(head(headers))
        status, fields, _ = await peer.response()
        assert status == 401
        assert fields["www-authenticate"] == 'Basic realm="the realm", charset="UTF-8"'


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, ValueError),
        ({"credentials": ("a", "b"), "check_credentials": in_coroutine}, ValueError),
        ({"credentials": ("a", "b"), "realm": 'a "quote"'}, ValueError),
        ({"credentials": ("a", "b"), "realm": "two\r\nlines"}, ValueError),
        ({"credentials": [("a", 1)]}, TypeError),
        ({"credentials": ["ab"]}, TypeError),
        ({"credentials": 1}, TypeError),
    ],
)
def test_arguments_out_of_bounds_are_refused(options: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        basic_auth(**options)
