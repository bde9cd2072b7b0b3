"""The Autobahn test suite: the library as others read the standard.

``FASTWS_PURE=1`` chooses the Python codec. ``docs/conformance.md`` explains what is expected.
"""

from __future__ import annotations

import collections
from pathlib import Path

import pytest

import fastws
from tests.conformance import autobahn, report
from tests.conformance.autobahn import GROUPS, Outcome, Variant

pytest.importorskip("kosoku")
pytestmark = pytest.mark.slow


@pytest.fixture(params=["listener", "coroutine"], scope="module")
def style(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture(scope="module")
def variant(carrier: str, style: str, loop_kind: str) -> Variant:
    return Variant(fastws.codec_name, carrier, style, loop_kind)


@pytest.fixture(params=["server", "client"], scope="module")
def side(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture(scope="module")
def outcomes(
    side: str, variant: Variant, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Outcome]:
    folder = tmp_path_factory.mktemp("autobahn")
    return autobahn.run(side, variant, folder, autobahn.tested(variant))


def test_every_case_ran(outcomes: dict[str, Outcome], variant: Variant) -> None:
    expected = autobahn.counts(autobahn.tested(variant))
    assert collections.Counter(outcome.group for outcome in outcomes.values()) == expected


@pytest.mark.parametrize("group", GROUPS)
def test_no_case_of_a_group_has_an_unexpected_outcome(
    outcomes: dict[str, Outcome], group: int
) -> None:
    unexpected = [
        outcome
        for outcome in outcomes.values()
        if outcome.group == group and autobahn.verdict(outcome) == "FAILED"
    ]
    assert not unexpected


def test_the_documentation_shows_these_results(
    outcomes: dict[str, Outcome], variant: Variant, side: str
) -> None:
    documented = report.documented(side, variant)
    for group, count in autobahn.counts(autobahn.tested(variant)).items():
        if count == GROUPS[group]:
            assert documented[group] == report.cell(outcomes.values(), group)


def test_the_documentation_shows_every_case_of_compression_on_each_codec_and_carrier(
    side: str, carrier: str
) -> None:
    documented = report.documented(side, Variant(fastws.codec_name, carrier, "listener"))
    # None of them is expected to be anything but "OK".
    assert {group: documented[group] for group in autobahn.KINDS} == {
        group: str(GROUPS[group]) for group in autobahn.KINDS
    }


def test_the_documentation_explains_every_informational_case() -> None:
    assert report.explanations() in report.DOCUMENT.read_text(encoding="utf-8")


def test_a_limit_that_is_too_low_fails_cases(tmp_path: Path) -> None:
    variant = Variant(fastws.codec_name, "asyncio", "listener")
    with autobahn.echo_server(variant, "--max-size", "1000") as port:
        outcomes = autobahn.run_server(port, tmp_path, ["1.1.1", "1.1.7", "9.1.1"])
    assert {case: autobahn.verdict(outcome) for case, outcome in outcomes.items()} == {
        "1.1.1": "OK",
        "1.1.7": "FAILED",
        "9.1.1": "FAILED",
    }
