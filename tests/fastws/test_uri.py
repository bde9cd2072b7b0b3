"""WebSocket URIs (RFC 6455 3)."""

from __future__ import annotations

import pytest

from fastws.exceptions import InvalidURI
from fastws.uri import WebSocketURI, parse_uri


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("ws://localhost", (False, "localhost", 80, "", "")),
        ("wss://localhost", (True, "localhost", 443, "", "")),
        ("WS://Example.ORG:81/a/b?c=d&e", (False, "example.org", 81, "/a/b", "c=d&e")),
        ("ws://[2001:db8::1]:8080/", (False, "2001:db8::1", 8080, "/", "")),
        ("ws://h/%C3%BC?q=%20%25", (False, "h", 80, "/%C3%BC", "q=%20%25")),
        (
            "ws://b\xfccher.example/\xfc?\xfc=\u2603",
            (
                False,
                "xn--bcher-kva.example",
                80,
                "/%C3%BC",
                "%C3%BC=%E2%98%83",
            ),
        ),
        ("ws://h/a;b=c/(d)/[e]/'f'", (False, "h", 80, "/a;b=c/(d)/[e]/'f'", "")),
        ("ws://u:p@h/", (False, "h", 80, "/", "", "u", "p")),
        ("ws://u%40x:p%3Aq@h/", (False, "h", 80, "/", "", "u@x", "p:q")),
        ("ws://u:@h/", (False, "h", 80, "/", "", "u", "")),
    ],
)
def test_a_uri_has_these_parts(uri: str, parts: tuple[object, ...]) -> None:
    assert parse_uri(uri) == WebSocketURI(*parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("http://localhost/", "scheme"),
        ("localhost:80", "scheme"),
        ("//localhost/", "scheme"),
        ("", "scheme"),
        ("ws:///path", "no host"),
        ("ws://", "no host"),
        ("ws://:80/", "no host"),
        ("ws://h/#", "fragment"),
        ("ws://h/a#b", "fragment"),
        ("ws://h:0/", "port"),
        ("ws://h:65536/", "ort"),
        ("ws://h:x/", "ort"),
        ("ws://u@h/", "password"),
        ("ws://h/a b", "space"),
        ("ws://h/a\r\nX: y", "control character"),
        ("ws://h/\t", "control character"),
        (" ws://h/", "space"),
        ("ws://[::1/", "IPv6"),
        ("ws://\xfc" + "x" * 80 + "/", "host"),
    ],
)
def test_what_is_no_websocket_uri_is_refused(uri: str, text: str) -> None:
    with pytest.raises(InvalidURI, match=text) as caught:
        parse_uri(uri)
    assert caught.value.uri == uri
    assert repr(uri) in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "resource_name", "authority"),
    [
        ("ws://h", "/", "h"),
        ("ws://h:80?a", "/?a", "h"),
        ("ws://h:443/b?", "/b", "h:443"),
        ("wss://h:443/b", "/b", "h"),
        ("wss://h:80/b", "/b", "h:80"),
        ("ws://[::1]:81", "/", "[::1]:81"),
        ("ws://[::1]", "/", "[::1]"),
    ],
)
def test_what_the_request_says(uri: str, resource_name: str, authority: str) -> None:
    parsed = parse_uri(uri)
    assert (parsed.resource_name, parsed.authority) == (resource_name, authority)
