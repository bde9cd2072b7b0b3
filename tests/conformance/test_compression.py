"""Groups 12 and 13 of the Autobahn test suite: permessage-deflate, on both sides.

They have 18 cases for each of five kinds of message and seven sets of parameters, with up to 1,000
messages each. Run are those with messages of 256 bytes, and of 1,024 bytes in fragments.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import fastws
from tests.conformance import autobahn
from tests.conformance.autobahn import Variant

pytest.importorskip("kosoku")
pytestmark = pytest.mark.slow

# 12.5 has messages that get no shorter. Ours sends those as they are if they must not refer to what
# came before (RFC 7692 6 allows it at any time), and kosoku cannot take such an answer: it ends in
# its own code ("Strings must be encoded before hashing").
KINDS = (1, 2, 3, 4)
PARAMETERS = (1, 2, 3, 4, 5, 6, 7)
# These want a client that offers client_no_context_takeover, which ours does when told to.
NOT_OFFERED = (2, 5, 6)


def cases_of(side: str) -> list[str]:
    parameters = [set_ for set_ in PARAMETERS if side == "server" or set_ not in NOT_OFFERED]
    groups = [f"12.{kind}" for kind in KINDS] + [f"13.{set_}" for set_ in parameters]
    return [f"{group}.{size}" for group in groups for size in (4, 11)]


@pytest.mark.parametrize("style", ["listener", "coroutine"])
@pytest.mark.parametrize("side", ["server", "client"])
def test_compressed_messages_come_back_as_they_were_sent(
    carrier: str, style: str, side: str, tmp_path: Path
) -> None:
    variant = Variant(fastws.codec_name, carrier, style)
    cases = cases_of(side)
    if side == "client":
        outcomes = autobahn.run_client(variant, tmp_path, cases)
    else:
        with autobahn.echo_server(variant) as port:
            outcomes = autobahn.run(port, tmp_path, cases)
    assert {case: outcome.behavior for case, outcome in outcomes.items()} == dict.fromkeys(
        sorted(cases, key=autobahn.numeric), "OK"
    )
