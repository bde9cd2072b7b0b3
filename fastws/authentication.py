"""HTTP Basic authentication of clients (RFC 7617)."""

from __future__ import annotations

import base64
import binascii
import hmac
import http
import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from .http import Request, Response
from .server_connection import ServerConnection

__all__ = ["basic_auth"]

Credentials = tuple[str, str]
CheckCredentials = Callable[[str, str], "Awaitable[bool] | bool"]


def basic_auth(
    realm: str = "",
    credentials: Credentials | Iterable[Credentials] | None = None,
    check_credentials: CheckCredentials | None = None,
) -> Callable[[ServerConnection, Request], Awaitable[Response | None]]:
    """A ``process_request`` that admits who gives a user name and password, and answers 401 to
    others.

    ``ws.username`` says afterwards who it is. Give one of ``credentials`` and
    ``check_credentials``. Without TLS, everyone on the way reads the password.

    Args:
        realm: what the user is told that the password is for; ASCII, without quotes.
        credentials: a pair of name and password, or several.
        check_credentials: ``(name, password)`` → whether they belong together; may be a coroutine
            function.

    Raises:
        ValueError: ``realm`` does not fit into a header, or not exactly one of the two is given.
        TypeError: ``credentials`` are not pairs of str.
    """
    if not realm.isascii() or not realm.isprintable() or '"' in realm or "\\" in realm:
        raise ValueError(f"realm: {realm!r} is not printable ASCII without quotes and backslashes")
    if (credentials is None) == (check_credentials is None):
        raise ValueError("give credentials or check_credentials, and not both")
    check = check_credentials or _checker(_pairs(credentials))

    async def process_request(ws: ServerConnection, request: Request) -> Response | None:
        given = _given(request.headers.get_all("Authorization"))
        if given is not None:
            valid = check(*given)
            if inspect.isawaitable(valid):
                valid = await valid
            if valid:
                ws.username = given[0]
                return None
        response = ws.respond(http.HTTPStatus.UNAUTHORIZED, "A user name and password, please.\n")
        response.headers["WWW-Authenticate"] = f'Basic realm="{realm}", charset="UTF-8"'
        return response

    return process_request


def _pairs(credentials: Any) -> dict[str, str]:
    pairs = [credentials] if _is_pair(credentials) else list(credentials)
    for pair in pairs:
        if not _is_pair(pair):
            raise TypeError(f"credentials: {type(pair).__name__} is not a pair of two str")
    return dict(pairs)


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(isinstance(part, str) for part in value)
    )


def _checker(passwords: dict[str, str]) -> CheckCredentials:
    def check(username: str, password: str) -> bool:
        # As long for a name that is not known as for one that is.
        expected = passwords.get(username)
        equal = hmac.compare_digest((expected or "").encode(), password.encode())
        return equal and expected is not None

    return check


def _given(lines: list[str]) -> Credentials | None:
    """Name and password of ``Authorization: Basic``; ``None`` if they cannot be read."""
    if len(lines) != 1:
        return None
    scheme, _, encoded = lines[0].partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    username, colon, password = text.partition(":")
    return (username, password) if colon else None
