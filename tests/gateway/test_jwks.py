"""Keys from a JWKS endpoint: read once, read anew, and what is not taken."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import jwt
import pytest

from gateway.auth import InvalidToken, TokenVerifier
from gateway.auth.jwks import KEYS_TTL, REFETCH_DELAY, Jwks, JwksUnavailable
from gateway.config import Token
from tests.gateway.tokens import EC_KEYS, ED_KEY, RSA_KEY, SECRET, token


def jwk(kid: str, key: Any, algorithm: str, **more: Any) -> dict[str, Any]:
    kind = jwt.get_algorithm_by_name(algorithm)
    return {**kind.to_jwk(key.public_key(), as_dict=True), "kid": kid, **more}


class Endpoint:
    """Counts how often it is read, and may be down."""

    def __init__(self, *keys: dict[str, Any]) -> None:
        self.body = json.dumps({"keys": keys}).encode()
        self.reads = 0
        self.is_down = False

    def __call__(self, url: str) -> bytes:
        self.reads += 1
        if self.is_down:
            raise ConnectionRefusedError("down")
        return self.body


def make(endpoint: Endpoint) -> tuple[Jwks, list[float]]:
    now = [0.0]
    return Jwks("https://keys.example/", endpoint, lambda: now[0]), now


async def test_keys_are_read_once_for_all_who_wait() -> None:
    endpoint = Endpoint(jwk("r", RSA_KEY, "RS256"), jwk("e", EC_KEYS["ES256"], "ES256"))
    jwks, _ = make(endpoint)
    found = await asyncio.gather(jwks.find("r", "RS256"), jwks.find("e", "ES256"))
    assert None not in found
    assert await jwks.find("r", "RS512") is not None
    assert endpoint.reads == 1


async def test_a_key_serves_its_own_algorithms_only() -> None:
    jwks, _ = make(
        Endpoint(
            jwk("e", EC_KEYS["ES256"], "ES256"),
            jwk("r", RSA_KEY, "RS256", alg="RS256"),
            jwk("d", ED_KEY, "EdDSA"),
        )
    )
    assert await jwks.find("d", "EdDSA") is not None
    for kid, algorithm in ("e", "HS256"), ("e", "ES384"), ("r", "RS512"), ("r", "none"):
        assert await jwks.find(kid, algorithm) is None


async def test_symmetric_broken_and_foreign_keys_are_passed_over() -> None:
    secret = {"kty": "oct", "kid": "s", "k": "c2VjcmV0"}
    broken = {"kty": "RSA", "kid": "b", "n": "!", "e": "AQAB"}
    foreign = jwk("f", RSA_KEY, "RS256", use="enc")
    jwks, _ = make(Endpoint(secret, broken, foreign, jwk("r", RSA_KEY, "RS256")))
    assert await jwks.find("r", "RS256") is not None
    for kid, algorithm in ("s", "HS256"), ("b", "RS256"), ("f", "RS256"):
        assert await jwks.find(kid, algorithm) is None


async def test_a_new_key_is_found_and_unknown_ones_do_not_flood_the_endpoint() -> None:
    endpoint = Endpoint(jwk("old", RSA_KEY, "RS256"))
    jwks, now = make(endpoint)
    assert await jwks.find("old", "RS256") is not None
    for number in range(50):
        assert await jwks.find(f"forged {number}", "RS256") is None
    assert endpoint.reads == 1
    endpoint.body = Endpoint(jwk("new", ED_KEY, "EdDSA")).body
    now[0] = REFETCH_DELAY
    assert await jwks.find("new", "EdDSA") is not None
    assert await jwks.find("old", "RS256") is None
    assert endpoint.reads == 2


async def test_keys_outlive_an_endpoint_that_is_down() -> None:
    endpoint = Endpoint(jwk("r", RSA_KEY, "RS256"))
    jwks, now = make(endpoint)
    await jwks.find("r", "RS256")
    endpoint.is_down = True
    now[0] = KEYS_TTL
    assert await jwks.find("r", "RS256") is not None
    assert endpoint.reads == 2


@pytest.mark.parametrize("body", [None, b"", b"[]", b'{"keys":5}', b"<html>"])
async def test_without_any_answer_it_is_nobodys_fault_but_ours(body: bytes | None) -> None:
    endpoint = Endpoint()
    endpoint.is_down = body is None
    endpoint.body = body or b""
    jwks, _ = make(endpoint)
    with pytest.raises(JwksUnavailable):
        await jwks.find("r", "RS256")


async def test_tokens_are_checked_with_them() -> None:
    tokens = TokenVerifier(
        Token(jwks_public_endpoint="https://keys.example/", hmac_secret_key=SECRET)
    )
    tokens._jwks, _ = make(Endpoint(jwk("r", RSA_KEY, "RS256")))
    signed = token(key=RSA_KEY, algorithm="RS256", headers={"kid": "r"})
    assert (await tokens.connection(signed)).sub == "ann"
    for forged in (
        token(headers={"kid": "r"}),
        token(),
        token(key=RSA_KEY, algorithm="RS256", headers={"kid": "x"}),
    ):
        with pytest.raises(InvalidToken):
            await tokens.connection(forged)
