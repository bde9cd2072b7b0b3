"""``serve``, ``connect`` and ``Settings`` name the same limits, with the same defaults and words.

They are written out in each, so that ``help`` and editors show them.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

import fastws
from fastws._impl import Settings
from fastws._options import limits
from fastws._pure.core import Settings as PureSettings

SHARED = {
    name: parameter.default
    for name, parameter in inspect.signature(PureSettings).parameters.items()
    if name != "client"
}

# Where the two sides differ, each says so itself.
OWN_WORDS = {"open_timeout", "ping_interval", "close_timeout", "max_backlog"}


def described(function: Any) -> dict[str, str]:
    """What the docstring says of each argument."""
    text = inspect.getdoc(function) or ""
    arguments = re.sub(r"\s+", " ", text.partition("Args:")[2].partition("Raises:")[0])
    names = "|".join(SHARED)
    found = re.findall(
        rf"(?:``)?\b({names})(?:``)?: (.*?)(?= (?:``)?\w+(?:, \w+)*(?:``)?: |$)", arguments
    )
    return dict(found)


@pytest.mark.parametrize("function", [fastws.serve, fastws.connect], ids=["serve", "connect"])
def test_limits_have_the_same_defaults_wherever_they_are_given(function: Any) -> None:
    parameters = inspect.signature(function).parameters
    assert {name: parameters[name].default for name in SHARED} == SHARED


def test_both_kinds_of_settings_have_the_same_defaults() -> None:
    ours, pure = Settings(), PureSettings()
    for name in ("write_high", "write_low", *SHARED.keys() - {"write_limit", "max_queue"}):
        assert getattr(ours, name) == getattr(pure, name), name
    assert ours.max_queue == pure.max_queue == SHARED["max_queue"]


def test_limits_are_described_in_the_same_words() -> None:
    serve, connect = described(fastws.serve), described(fastws.connect)
    assert serve.keys() == connect.keys() == SHARED.keys()
    for name in SHARED.keys() - OWN_WORDS:
        assert serve[name] == connect[name], name


# --- what websockets takes in more shapes

PAIRS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"max_size": (1000, None)}, {"max_size": 1000}),
    ({"max_size": (1000, 1000)}, {"max_size": 1000}),
    ({"max_size": (None, None)}, {"max_size": None}),
    ({"max_queue": (8, 2)}, {"max_queue": 8}),
    ({"max_queue": (8, None)}, {"max_queue": 8}),
    ({"max_queue": (None, 2)}, {"max_queue": 8}),
    ({"max_queue": (None, None)}, {"max_queue": None}),
    ({"write_limit": (1000, None)}, {"write_limit": 1000}),
    ({"write_limit": (1000, 10)}, {"write_limit": (1000, 10)}),
]


@pytest.mark.parametrize(("given", "meant"), PAIRS)
def test_a_limit_may_be_a_pair(given: dict[str, Any], meant: dict[str, Any]) -> None:
    usual: dict[str, Any] = {"max_size": 1, "max_queue": 1, "write_limit": 1}
    found = limits(**{**usual, **given})
    assert found == {**usual, **meant}
    Settings(**found)


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"max_size": (1000, 10)}, ValueError, "max_size: .* fragments have no limit of their own"),
    ({"max_size": (None, 10)}, ValueError, "max_size: .* fragments have no limit of their own"),
    ({"max_size": (1, 2, 3)}, TypeError, "max_size: .* is neither a number nor a pair"),
    ({"max_queue": (1, 2)}, ValueError, r"max_queue: low-water mark 2 is not in 0\.\.1"),
    ({"write_limit": (None, 2)}, TypeError, "write_limit: the high-water mark is None"),
    ({"extensions": ["x"]}, TypeError, "extensions: permessage-deflate is the only one"),
]


@pytest.mark.parametrize(("given", "error", "message"), WRONG)
def test_what_cannot_be_had_is_told(
    given: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        fastws.connect("ws://localhost/", **given)
    with pytest.raises(error, match=message):
        fastws.serve(lambda ws: None, "127.0.0.1", 0, **given)


def test_timeouts_of_tls_need_tls() -> None:
    for name in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
        with pytest.raises(ValueError, match="need ssl"):
            fastws.serve(lambda ws: None, "127.0.0.1", 0, **{name: 1.0})


def test_defaults_that_are_written_out_change_nothing() -> None:
    explicit: dict[str, Any] = {"extensions": None, "create_connection": None}
    fastws.connect("ws://localhost/", **explicit)
    fastws.serve(lambda ws: None, "127.0.0.1", 0, **explicit)
