"""The API does what its description says, whatever is sent to it."""

from __future__ import annotations

import asyncio

import hypothesis
import pytest
import schemathesis
from schemathesis import checks

from gateway.config import load
from gateway.engines import MemoryEngine
from gateway.http import make_app
from gateway.node import Node

KEY = "key"

# Not `negative_data_rejection`: an empty channel, say, is answered with 200 and error 107.
CHECKS = [
    checks.not_a_server_error,
    checks.content_type_conformance,
    checks.ignored_auth,
    checks.response_schema_conformance,
    checks.status_code_conformance,
]


def described() -> schemathesis.BaseSchema:
    """The description that a node serves, and the app behind it."""
    flags = {
        "http_api.key": KEY,
        "channel.without_namespace.presence": True,
        "channel.without_namespace.history_size": 3,
        "channel.without_namespace.history_ttl": 60,
    }
    node = Node(load(flags=flags), MemoryEngine())
    asyncio.run(node.start())
    return schemathesis.openapi.from_asgi("/api/openapi.json", make_app(node))


@pytest.mark.slow
@described().parametrize()
@hypothesis.settings(max_examples=15, suppress_health_check=list(hypothesis.HealthCheck))
def test_the_api_is_as_described(case: schemathesis.Case) -> None:
    case.call_and_validate(headers={"X-API-Key": KEY}, checks=CHECKS)
