"""Tokens: which are believed, which are not, and what is read from them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from gateway.auth import InvalidToken, Revocations, TokenExpired, TokenVerifier
from gateway.auth.keys import signatures
from gateway.auth.revocation import DEFAULT_TTL
from gateway.auth.tokens import MAX_TOKEN
from gateway.config import ConfigError, Token
from tests.gateway.tokens import EC_KEYS, ED_KEY, RSA_KEY, SECRET, pem, token

NOW = 1_000_000.0


def verifier(**settings: Any) -> TokenVerifier:
    if not settings:
        settings = {"hmac_secret_key": SECRET}
    return TokenVerifier(Token(**settings), clock=lambda: NOW)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def raw_token(header: Any, claims: Any, signature: bytes = b"") -> str:
    parts = (json.dumps(part).encode() for part in (header, claims))
    return ".".join([*map(b64, parts), b64(signature)])


# -- signatures


@pytest.mark.parametrize(
    ("algorithm", "key", "settings"),
    [
        ("HS256", SECRET, {"hmac_secret_key": SECRET}),
        ("HS384", SECRET, {"hmac_secret_key": SECRET}),
        ("HS512", SECRET, {"hmac_secret_key": SECRET}),
        ("RS256", RSA_KEY, {"rsa_public_key": pem(RSA_KEY)}),
        ("RS384", RSA_KEY, {"rsa_public_key": pem(RSA_KEY)}),
        ("RS512", RSA_KEY, {"rsa_public_key": pem(RSA_KEY)}),
        ("ES256", EC_KEYS["ES256"], {"ecdsa_public_key": pem(EC_KEYS["ES256"])}),
        ("ES384", EC_KEYS["ES384"], {"ecdsa_public_key": pem(EC_KEYS["ES384"])}),
        ("ES512", EC_KEYS["ES512"], {"ecdsa_public_key": pem(EC_KEYS["ES512"])}),
        ("EdDSA", ED_KEY, {"ed25519_public_key": pem(ED_KEY)}),
    ],
)
async def test_a_token_signed_with_the_key_is_believed(
    algorithm: str, key: Any, settings: dict[str, str]
) -> None:
    text = token("ann", key=key, algorithm=algorithm)
    assert (await verifier(**settings).connection(text)).sub == "ann"
    head, content, signature = text.split(".")
    broken = ("A" if signature[0] != "A" else "B") + signature[1:]
    with pytest.raises(InvalidToken):
        await verifier(**settings).connection(f"{head}.{content}.{broken}")


async def test_a_token_without_a_signature_is_not_believed() -> None:
    for algorithm in "none", "None", "NONE", "":
        with pytest.raises(InvalidToken):
            await verifier().connection(raw_token({"alg": algorithm}, {"sub": "admin"}))
    with pytest.raises(InvalidToken):
        await verifier().connection(raw_token({}, {"sub": "admin"}))


async def test_a_public_key_is_no_hmac_secret() -> None:
    """The classic confusion: sign with the text of the public key, which everybody knows."""
    public = pem(RSA_KEY)
    content = raw_token({"alg": "HS256"}, {"sub": "admin"}).rpartition(".")[0]
    signature = hmac.new(public.encode(), content.encode(), hashlib.sha256).digest()
    forged = f"{content}.{b64(signature)}"
    for settings in (
        {"rsa_public_key": public},
        {"rsa_public_key": public, "hmac_secret_key": SECRET},
    ):
        with pytest.raises(InvalidToken):
            await verifier(**settings).connection(forged)


async def test_an_algorithm_without_a_key_is_refused() -> None:
    with pytest.raises(InvalidToken, match="no key for 'RS256'"):
        await verifier().connection(token(key=RSA_KEY, algorithm="RS256"))
    with pytest.raises(InvalidToken, match="no key for 'ES256'"):
        await verifier(ecdsa_public_key=pem(EC_KEYS["ES384"])).connection(
            token(key=EC_KEYS["ES256"], algorithm="ES256")
        )


async def test_without_any_key_no_token_is_good() -> None:
    settings = verifier(audience="x")
    assert not settings.has_keys
    with pytest.raises(InvalidToken):
        await settings.connection(token())


async def test_the_previous_secret_is_good_for_tokens_of_its_time() -> None:
    old = "the previous secret, which is also a long one: 32 bytes and more"
    settings = {"hmac_secret_key": SECRET, "hmac_previous_secret_key": old}
    assert (await verifier(**settings).connection(token(key=old))).sub == "ann"
    bounded = verifier(**settings, hmac_previous_secret_key_valid_until=int(NOW) - 10)
    assert (await bounded.connection(token(key=old, iat=NOW - 11))).sub == "ann"
    assert (await bounded.connection(token(iat=NOW))).sub == "ann"
    for claims in ({"iat": NOW - 9}, {}):
        with pytest.raises(InvalidToken):
            await bounded.connection(token(key=old, **claims))


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "\x00",
        "ü.ü.ü",
        "e30.e30.e30",
        "e30.e30",
        b64(b"[]") + ".e30.",
        b64(b'{"alg":5}') + ".e30.",
        b64(b"[" * 10000) + ".e30.",
        b64(b'{"alg":"HS256"}'),
        "x" * (MAX_TOKEN + 1),
    ],
)
async def test_what_is_no_token_is_invalid(text: str) -> None:
    with pytest.raises(InvalidToken):
        await verifier().connection(text)


@pytest.mark.skipif(
    not hasattr(jwt.PyJWS, "_decode_base64url_segment"), reason="this PyJWT has no such check"
)
def test_base64_is_as_strict_as_that_of_the_library() -> None:
    def outcome(decode: Callable[[bytes, str], bytes], text: bytes) -> object:
        try:
            return decode(text, "payload")
        except jwt.DecodeError as error:
            return str(error)

    ours, theirs = signatures()._decode_base64url_segment, jwt.PyJWS._decode_base64url_segment
    texts = [b"", b"QQ", b"QUI", b"QUJD", b"_-_-", b"QQ==", b"QUI=", b"QQ=", b"QUJD=", b"QQ==="]
    texts += [b"Q", b"QUJDQ", b"QR", b"QUJ", b"+/+/", b"Q Q", b"QQ\n", b"\xff\xff", b"QQ."]
    texts += [b"=", b"Q==="]
    for text in texts:
        assert outcome(ours, text) == outcome(theirs, text)
    assert [text for text in texts if isinstance(outcome(ours, text), bytes)] == texts[:7]


# -- claims


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": 5},
        {"exp": "soon"},
        {"exp": -1},
        {"channels": "a"},
        {"channels": [1]},
        {"subs": ["a"]},
        {"subs": {"a": {"override": {"presence": True}}}},
        {"subs": {"a": {"b64info": "%%%"}}},
        {"b64info": "%%%"},
        {"b64info": base64.b64encode(b"not json").decode()},
        {"expire_at": "x"},
        {"channel": "a"},  # a subscription token
    ],
)
async def test_wrong_claims_make_a_token_invalid(claims: dict[str, Any]) -> None:
    content = {"sub": "ann", **claims}
    text = jwt.api_jws.encode(json.dumps(content).encode(), SECRET, algorithm="HS256")
    with pytest.raises(InvalidToken):
        await verifier().connection(text)


async def test_payloads_are_read_plain_or_in_base64() -> None:
    encoded = base64.b64encode(b'{"name":"x"}').decode()
    claims = await verifier().connection(
        token(b64info=encoded, meta={"a": 1}, subs={"news": {"info": 5, "b64data": encoded}})
    )
    assert bytes(claims.info) == b'{"name":"x"}'
    assert json.loads(bytes(claims.meta)) == {"a": 1}
    assert bytes(claims.subs["news"].info) == b"5"
    assert bytes(claims.subs["news"].data) == b'{"name":"x"}'


async def test_channels_are_subs_without_options_unless_there_are_subs() -> None:
    claims = await verifier().connection(token(channels=["a", "b"]))
    assert list(claims.subs) == ["a", "b"]
    claims = await verifier().connection(token(channels=["a"], subs={"b": {}}))
    assert list(claims.subs) == ["b"]


async def test_a_token_is_good_until_its_time_and_from_its_time() -> None:
    assert (await verifier().connection(token(exp=NOW + 1, nbf=NOW))).expires == NOW + 1
    for claims in ({"exp": NOW}, {"exp": NOW - 1}, {"nbf": NOW + 1}):
        with pytest.raises(TokenExpired):
            await verifier().connection(token(**claims))


async def test_expire_at_goes_before_exp() -> None:
    assert (await verifier().connection(token(exp=NOW + 5, expire_at=0))).expires == 0
    later = token(exp=NOW + 5, expire_at=int(NOW) + 9)
    assert (await verifier().connection(later)).expires == NOW + 9
    assert (await verifier().connection(token())).expires == 0


async def test_audience_and_issuer_have_to_fit() -> None:
    fussy = verifier(hmac_secret_key=SECRET, audience="us", issuer="them")
    assert (await fussy.connection(token(aud=["x", "us"], iss="them"))).sub == "ann"
    assert (await fussy.connection(token(aud="us", iss="them"))).sub == "ann"
    for claims in ({}, {"aud": "us"}, {"aud": "x", "iss": "them"}, {"aud": "us", "iss": "x"}):
        with pytest.raises(InvalidToken):
            await fussy.connection(token(**claims))
    by_regex = verifier(hmac_secret_key=SECRET, audience_regex="^u", issuer_regex="em$")
    assert (await by_regex.connection(token(aud="us", iss="them"))).sub == "ann"
    with pytest.raises(InvalidToken):
        await by_regex.connection(token(aud="them", iss="us"))


async def test_the_user_may_be_in_another_claim() -> None:
    other = verifier(hmac_secret_key=SECRET, user_id_claim="uid")
    assert (await other.connection(token(uid="bob"))).sub == "bob"
    assert (await other.connection(token())).sub == ""
    assert (await other.subscription(token(uid="bob", channel="a"))).sub == "bob"
    for number, user in (-100, "-100"), (10**40 + 1, f"1{'0' * 39}1"), (1e3, "1000"), (1.5, "1.5"):
        assert (await other.connection(token(uid=number))).sub == user
    for value in None, True, {}, [], ["bob"]:
        with pytest.raises(InvalidToken, match="no string and no number"):
            await other.connection(token(uid=value))


async def test_a_subscription_token_names_its_channel() -> None:
    claims = await verifier().subscription(token(channel="news", client="c", info=1, data=2))
    assert (claims.channel, claims.client) == ("news", "c")
    assert (bytes(claims.info), bytes(claims.data)) == (b"1", b"2")
    with pytest.raises(InvalidToken, match="channel is missing"):
        await verifier().subscription(token())


# -- revocation


async def test_a_revoked_token_is_invalid_until_the_revocation_ends() -> None:
    now = [NOW]
    revocations = Revocations(lambda: now[0])
    tokens = TokenVerifier(
        Token(hmac_secret_key=SECRET), revocations=revocations, clock=lambda: now[0]
    )
    revocations.revoke_token("7", NOW + 5)
    assert (await tokens.connection(token(jti="8"))).sub == "ann"
    with pytest.raises(InvalidToken, match="revoked"):
        await tokens.connection(token(jti="7"))
    now[0] += 5
    assert (await tokens.connection(token(jti="7"))).sub == "ann"


async def test_tokens_of_a_user_are_invalidated_by_their_time_of_issue() -> None:
    revocations = Revocations(lambda: NOW)
    tokens = TokenVerifier(
        Token(hmac_secret_key=SECRET), revocations=revocations, clock=lambda: NOW
    )
    revocations.invalidate_user_tokens("ann", NOW - 5)
    assert (await tokens.connection(token(iat=NOW - 5))).sub == "ann"
    assert (await tokens.connection(token("bob"))).sub == "bob"
    for claims in ({"iat": NOW - 6}, {}):
        with pytest.raises(InvalidToken):
            await tokens.connection(token(**claims))
    assert (await tokens.subscription(token(channel="a"))).sub == "ann"
    revocations.invalidate_user_tokens("ann", channel="a")
    with pytest.raises(InvalidToken):
        await tokens.subscription(token(channel="a"))


def test_what_has_ended_is_forgotten() -> None:
    now = [NOW]
    revocations = Revocations(lambda: now[0])
    revocations.revoke_token("7")
    revocations.invalidate_user_tokens("ann")
    revocations.block("ann", NOW + 1)
    assert revocations.is_blocked("ann") and not revocations.is_blocked("bob")
    now[0] += 1
    assert not revocations.is_blocked("ann")
    revocations.expire()
    assert len(revocations) == 2
    now[0] += DEFAULT_TTL
    revocations.expire()
    assert len(revocations) == 0


# -- keys


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rsa_public_key", "garbage"),
        ("rsa_public_key", pem(ED_KEY)),
        ("rsa_public_key", pem(rsa.generate_private_key(65537, 1024))),
        ("ecdsa_public_key", pem(RSA_KEY)),
        ("ecdsa_public_key", pem(ec.generate_private_key(ec.SECP256K1()))),
        ("ed25519_public_key", pem(RSA_KEY)),
    ],
)
def test_an_unusable_key_is_named(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=rf"^client\.token\.{name}: not a usable public key"):
        verifier(**{name: text})


@pytest.mark.parametrize("name", ["hmac_secret_key", "hmac_previous_secret_key"])
def test_a_public_key_is_not_taken_for_a_secret(name: str) -> None:
    """Anyone may have it, and sign with it."""
    with pytest.raises(ConfigError, match=rf"^client\.token\.{name}: not a usable secret"):
        verifier(**{name: pem(RSA_KEY)})
