"""JSON Web Tokens (RFC 7519) of connections and of subscriptions, with Centrifugo's claims."""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, TypeVar

import jwt
import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from gateway.auth.jwks import Jwks
from gateway.auth.keys import StaticKeys, signatures
from gateway.auth.revocation import Revocations, TokenMark
from gateway.config import Token

# Bytes. Larger than any token with claims as they are meant; a signature is not looked at sooner.
MAX_TOKEN = 32768

_LF, _CR = b"\n\r"  # numbers are found in bytes several times as fast as bytes are

_Time = Annotated[float, Meta(ge=0, le=2**53)]  # RFC 7519 2, NumericDate


class InvalidToken(Exception):
    """A token that is not to be believed. The text is for the log only."""


class TokenExpired(Exception):
    """A token that was good once, or is not good yet."""


class Flag(Struct, frozen=True):
    """An option that is overridden: ``{"value": true}``."""

    value: bool = False


class Override(Struct, frozen=True):
    """Options of a channel that a token or a backend sets for one subscription."""

    presence: Flag | None = None
    join_leave: Flag | None = None
    force_push_join_leave: Flag | None = None
    force_recovery: Flag | None = None
    force_positioning: Flag | None = None


class SubscribeOptions(Struct, frozen=True):
    """A server-side subscription in the claim ``subs``."""

    info: Raw | UnsetType = UNSET
    b64info: str = ""
    data: Raw | UnsetType = UNSET
    b64data: str = ""
    override: Override | None = None


class _Registered(Struct, frozen=True, kw_only=True):
    """Claims that both kinds have."""

    sub: str = ""
    exp: _Time | None = None
    nbf: _Time | None = None
    iat: _Time | None = None
    jti: str = ""
    aud: str | list[str] = ""
    iss: str = ""
    channel: str = ""
    expire_at: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    info: Raw | UnsetType = UNSET
    b64info: str = ""

    @property
    def expires(self) -> float:
        """When what the token grants ends, in Unix time; 0 for never. ``expire_at`` goes first."""
        if self.expire_at is not None:
            return self.expire_at
        return self.exp or 0


class ConnectionClaims(_Registered, frozen=True, kw_only=True):
    """A connection token."""

    channels: list[str] = []
    subs: dict[str, SubscribeOptions] = {}
    meta: Raw | UnsetType = UNSET


class SubscriptionClaims(_Registered, frozen=True, kw_only=True):
    """A subscription token."""

    client: str = ""
    data: Raw | UnsetType = UNSET
    b64data: str = ""
    override: Override | None = None


class _Header(Struct):
    alg: str = ""
    kid: str = ""


_Claims = TypeVar("_Claims", ConnectionClaims, SubscriptionClaims)

_connection = msgspec.json.Decoder(ConnectionClaims)
_subscription = msgspec.json.Decoder(SubscriptionClaims)
_header = msgspec.json.Decoder(_Header)
_anything = msgspec.json.Decoder(dict[str, Any])


def payload(raw: Raw | UnsetType, b64: str = "") -> Raw | UnsetType:
    """JSON given as it is, or in base64, which goes first. Null is nothing.

    The result does not refer to the bytes that it was read from. Raises `ValueError` for what is
    not JSON in base64.
    """
    if b64:
        try:
            decoded = base64.b64decode(b64, validate=True)
            msgspec.json.decode(decoded)
        except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"not JSON in base64: {error}") from None
        raw = Raw(decoded)
    if isinstance(raw, UnsetType) or bytes(raw) == b"null":
        return UNSET
    return one_line(raw)


def one_line(raw: Raw) -> Raw:
    """Valid JSON without line ends, as messages to clients are lines, in memory of its own."""
    text = bytes(raw)
    if _LF in text or _CR in text:  # not inside a string, where it is written \\n
        text = msgspec.json.format(text, indent=-1)
    return Raw(text)


def _plain(options: SubscribeOptions) -> SubscribeOptions:
    return SubscribeOptions(
        info=payload(options.info, options.b64info),
        data=payload(options.data, options.b64data),
        override=options.override,
    )


class TokenVerifier:
    """Checks tokens against the keys and rules of one section of the configuration.

    ``where`` is its name in messages. Raises `ConfigError` for keys that cannot be used.
    """

    def __init__(
        self,
        settings: Token,
        where: str = "client.token",
        revocations: Revocations | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._keys = StaticKeys(settings, where)
        endpoint = settings.jwks_public_endpoint
        self._jwks = Jwks(endpoint) if endpoint else None
        self._audience = re.compile(settings.audience_regex) if settings.audience_regex else None
        self._issuer = re.compile(settings.issuer_regex) if settings.issuer_regex else None
        self._revocations = Revocations(clock) if revocations is None else revocations
        self._clock = clock
        self._signatures = signatures()

    @property
    def has_keys(self) -> bool:
        """Whether any token can be good."""
        return bool(self._keys) or self._jwks is not None

    async def connection(self, token: str) -> ConnectionClaims:
        """The claims of a connection token; payloads are plain, and ``subs`` has all channels.

        Raises `InvalidToken`, `TokenExpired`, or `OSError` when keys cannot be had now.
        """
        claims = await self._verify(token, _connection)
        if claims.channel:
            raise InvalidToken("a subscription token is no connection token")
        try:
            subs = {name: _plain(options) for name, options in claims.subs.items()}
            return msgspec.structs.replace(
                claims,
                info=payload(claims.info, claims.b64info),
                meta=payload(claims.meta),
                subs=subs or {name: SubscribeOptions() for name in claims.channels},
            )
        except ValueError as error:
            raise InvalidToken(str(error)) from None

    async def subscription(self, token: str) -> SubscriptionClaims:
        """The claims of a subscription token. Raises as `connection`."""
        claims = await self._verify(token, _subscription)
        if not claims.channel:
            raise InvalidToken("the claim channel is missing")
        try:
            return msgspec.structs.replace(
                claims,
                info=payload(claims.info, claims.b64info),
                data=payload(claims.data, claims.b64data),
            )
        except ValueError as error:
            raise InvalidToken(str(error)) from None

    def is_revoked(self, mark: TokenMark, user: str, channel: str) -> bool:
        """Whether a subscription token has been revoked since it was believed."""
        return self._revocations.is_revoked(mark.token_id, user, mark.issued_at, channel)

    async def _verify(self, token: str, decoder: msgspec.json.Decoder[_Claims]) -> _Claims:
        if len(token) > MAX_TOKEN:
            raise InvalidToken(f"the token has {len(token)} bytes")
        header = _read_header(token)
        content, by_previous = await self._check_signature(token, header)
        try:
            claims = decoder.decode(content)
            if self._settings.user_id_claim:
                claims = self._with_user(claims, content)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InvalidToken(f"claims: {error}") from None
        until = self._settings.hmac_previous_secret_key_valid_until
        if by_previous and until and (claims.iat is None or claims.iat > until):
            raise InvalidToken("signed with the previous secret after its end")
        self._check_claims(claims)
        return claims

    async def _check_signature(self, token: str, header: _Header) -> tuple[bytes, bool]:
        """The payload of a token that is signed well, and whether with the previous secret."""
        if self._jwks is not None:
            key = await self._jwks.find(header.kid, header.alg)
            keys = [(key, False)] if key is not None else []
        else:
            keys = list(self._keys.candidates(header.alg))
        reason = f"no key for {header.alg[:20]!r}"
        for key, is_previous in keys:
            try:
                # One algorithm only, tied to this kind of key (see gateway.auth.keys).
                content = self._signatures.decode(token, key, algorithms=[header.alg])
            except (jwt.PyJWTError, ValueError, TypeError) as error:
                reason = str(error)
            else:
                return content, is_previous
        raise InvalidToken(reason)

    def _with_user(self, claims: _Claims, content: bytes) -> _Claims:
        value = _anything.decode(content).get(self._settings.user_id_claim, "")
        return msgspec.structs.replace(claims, sub=_user(value))

    def _check_claims(self, claims: _Registered) -> None:
        settings = self._settings
        audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud
        if settings.audience and settings.audience not in audiences:
            raise InvalidToken("wrong audience")
        if self._audience is not None and not any(map(self._audience.search, audiences)):
            raise InvalidToken("wrong audience")
        if settings.issuer and settings.issuer != claims.iss:
            raise InvalidToken("wrong issuer")
        if self._issuer is not None and not self._issuer.search(claims.iss):
            raise InvalidToken("wrong issuer")
        now = self._clock()
        if (claims.exp is not None and claims.exp <= now) or (claims.nbf or 0) > now:
            raise TokenExpired
        if self._revocations.is_revoked(claims.jti, claims.sub, claims.iat, claims.channel):
            raise InvalidToken("the token is revoked")


def _user(value: object) -> str:
    """The user id that a claim holds. Raises `InvalidToken` for what would be one for many."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        return format(Decimal(repr(value)).normalize(), "f")
    raise InvalidToken("the claim with the user id is no string and no number")


def _read_header(token: str) -> _Header:
    encoded = token.partition(".")[0]
    try:
        raw = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
        return _header.decode(raw)
    except (ValueError, msgspec.DecodeError, RecursionError) as error:
        raise InvalidToken(f"header: {error}") from None
