"""The small value types: what they say, and that they say it as ``websockets`` does."""

from __future__ import annotations

import pickle

import pytest
import websockets.exceptions
import websockets.frames

import fastws
from fastws import Close, CloseCode, Headers, Opcode, Response, State
from fastws.exceptions import connection_closed
from fastws.handshake import accept_key, offered_subprotocols
from tests.fastws.client import ACCEPT, KEY

# --- frames


def test_opcodes_close_codes_and_states_are_those_of_websockets() -> None:
    assert {o.name: o.value for o in Opcode} == {o.name: o.value for o in websockets.frames.Opcode}
    assert {c.name: c.value for c in CloseCode} == {
        c.name: c.value for c in websockets.frames.CloseCode
    }
    assert [(state.name, state.value) for state in State] == [
        ("CONNECTING", 0),
        ("OPEN", 1),
        ("CLOSING", 2),
        ("CLOSED", 3),
    ]


@pytest.mark.parametrize(
    ("close", "text"),
    [
        (Close(1000), "1000 (normal closure)"),
        (Close(1001, "bye"), "1001 (going away) bye"),
        (Close(1005), "1005 (no status rcvd)"),
        (Close(1016), "1016 (unknown)"),
        (Close(3000), "3000 (registered)"),
        (Close(4999, "mine"), "4999 (private use) mine"),
    ],
)
def test_close_reads_well(close: Close, text: str) -> None:
    assert str(close) == text


# --- exceptions


def test_kind_of_connection_closed_follows_both_close_frames() -> None:
    for good in (1000, 1001, 1005):
        assert type(connection_closed(Close(good), Close(good), True)) is fastws.ConnectionClosedOK
    for rcvd, sent in (
        (None, None),
        (Close(1000), None),
        (None, Close(1000)),
        (Close(1000), Close(4000)),
        (Close(1011), Close(1011)),
    ):
        error = connection_closed(rcvd, sent, None)
        assert type(error) is fastws.ConnectionClosedError
        assert isinstance(error, fastws.ConnectionClosed)
        assert error.code == (rcvd.code if rcvd else 1006)


def test_connection_closed_says_who_closed_and_how() -> None:
    one, two = Close(1000, "a"), Close(1001, "b")
    texts = {
        str(connection_closed(None, None, None)): "no close frame received or sent",
        str(connection_closed(one, None, None)): (
            "received 1000 (normal closure) a; no close frame sent"
        ),
        str(connection_closed(None, two, None)): (
            "sent 1001 (going away) b; no close frame received"
        ),
        str(connection_closed(one, two, True)): (
            "received 1000 (normal closure) a; then sent 1001 (going away) b"
        ),
        str(connection_closed(one, two, False)): (
            "sent 1001 (going away) b; then received 1000 (normal closure) a"
        ),
    }
    for got, expected in texts.items():
        assert got == expected


def test_exceptions_have_the_names_and_bases_of_websockets() -> None:
    for name in (
        "ConcurrencyError",
        "ConnectionClosed",
        "ConnectionClosedError",
        "ConnectionClosedOK",
        "InvalidHandshake",
        "InvalidHeader",
        "InvalidMessage",
        "InvalidOrigin",
        "InvalidUpgrade",
        "NegotiationError",
        "ProtocolError",
        "WebSocketException",
    ):
        ours = getattr(fastws, name)
        theirs = getattr(websockets.exceptions, name)
        names = {base.__name__ for base in ours.__mro__}
        assert {
            base.__name__ for base in theirs.__mro__ if base.__module__.startswith("websockets")
        } <= names


def test_handshake_errors_carry_their_status() -> None:
    assert fastws.InvalidHandshake("x").status == 400
    assert fastws.InvalidOrigin("x").status == 403
    assert fastws.InvalidHandshake("x", status=503).status == 503
    assert fastws.InvalidHandshake.status == 400


def test_exceptions_survive_pickling() -> None:
    closed = connection_closed(Close(4000, "x"), None, None)
    again = pickle.loads(pickle.dumps(closed))
    assert type(again) is type(closed) and (again.code, again.reason) == (4000, "x")
    error = fastws.ProtocolError(1002, "reserved bits")
    again = pickle.loads(pickle.dumps(error))
    assert (again.code, str(again)) == (1002, "reserved bits")


# --- headers, responses, the handshake's arithmetic


def test_headers_compare_names_without_case_and_keep_order_and_repeats() -> None:
    headers = Headers([("A", "1"), ("b", "2"), ("a", "3")], c="4")
    assert list(headers.raw_items()) == [("A", "1"), ("b", "2"), ("a", "3"), ("c", "4")]
    assert headers["B"] == headers["b"] == "2"
    assert headers.get_all("a") == ["1", "3"] and headers.get_all("none") == []
    assert "C" in headers and "none" not in headers and 1 not in headers
    assert headers.get("none") is None
    assert len(headers) == 3 and list(headers) == ["a", "b", "c"]
    with pytest.raises(fastws.MultipleValuesError):
        headers["a"]
    with pytest.raises(KeyError):
        headers["none"]
    del headers["A"]
    assert list(headers.raw_items()) == [("b", "2"), ("c", "4")]
    headers["D"] = "5"
    assert dict(Headers({"x": "1"})) == {"x": "1"}
    assert "'D', '5'" in repr(headers)
    assert str(headers) == "b: 2\r\nc: 4\r\nD: 5\r\n\r\n"


def test_response_is_serialised_as_http() -> None:
    response = Response.of_text(404, "no \N{SNOWMAN}", [("X", "\xe9")])
    assert response.serialize() == (
        b"HTTP/1.1 404 Not Found\r\nX: \xe9\r\nConnection: close\r\nContent-Length: 6\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n\r\nno \xe2\x98\x83"
    )
    assert Response.of_text(499, "").serialize().startswith(b"HTTP/1.1 499 \r\n")


@pytest.mark.parametrize("bad", ["a\r\nB: c", "a\nb", "a\0b", "a\rb"])
def test_response_refuses_to_write_a_header_that_leaves_its_line(bad: str) -> None:
    for headers in (Headers([("X", bad)]), Headers([(bad, "x")])):
        with pytest.raises(ValueError, match="control character"):
            Response(200, "OK", headers).serialize()


def test_response_refuses_a_reason_phrase_that_leaves_its_line() -> None:
    with pytest.raises(ValueError):
        Response(200, "OK\r\nSet-Cookie: a=1").serialize()


def test_accept_key_is_that_of_the_rfc() -> None:
    assert accept_key(KEY.encode()) == ACCEPT.encode()


def test_offered_subprotocols_may_be_spread_over_lines() -> None:
    assert offered_subprotocols(["a, b", "c"]) == ["a", "b", "c"]
    for wrong in (["a b"], ["a,"], [""], ["a", "b;c"]):
        with pytest.raises(fastws.InvalidHeader):
            offered_subprotocols(wrong)


def test_a_copy_of_headers_has_lines_of_its_own() -> None:
    headers = Headers([("A", "1"), ("a", "2"), ("B", "3")])
    copy = headers.copy()
    del copy["a"]
    assert list(headers.raw_items()) == [("A", "1"), ("a", "2"), ("B", "3")]
    assert list(copy.raw_items()) == [("B", "3")]


def test_headers_are_serialized_with_the_empty_line_behind_them() -> None:
    assert Headers([("A", "1"), ("a", "\xe9")]).serialize() == b"A: 1\r\na: \xe9\r\n\r\n"
    with pytest.raises(ValueError, match="control character"):
        Headers([("A", "1\r\nB: 2")]).serialize()
