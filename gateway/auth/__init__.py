"""Who a client is: tokens, where they come from, what revokes them, and which pages may connect."""

from gateway.auth.revocation import Revocations, TokenMark
from gateway.auth.tokens import (
    ConnectionClaims,
    InvalidToken,
    SubscriptionClaims,
    TokenExpired,
    TokenVerifier,
)

__all__ = [
    "ConnectionClaims",
    "InvalidToken",
    "Revocations",
    "SubscriptionClaims",
    "TokenExpired",
    "TokenMark",
    "TokenVerifier",
]
