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
