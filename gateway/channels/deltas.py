"""Publications as deltas from the one before (Fossil's format), for clients that asked for it."""

from __future__ import annotations

from collections.abc import Iterable

from fastws.fossil import create_delta
from gateway.model import Publication
from gateway.protocols.base import ClientProtocol

DELTA_TYPES = ("fossil",)


def patch(base: bytes | None, data: bytes) -> bytes | None:
    """What makes ``data`` out of ``base``; None without a base, or where it would be no shorter."""
    return None if base is None else create_delta(base, data)


def chain(protocol: ClientProtocol, publications: Iterable[Publication]) -> list[Publication]:
    """Publications that a client gets at once: the first whole, each other from the one before."""
    base: bytes | None = None
    told = []
    for publication in publications:
        data = bytes(publication.data)
        told.append(protocol.in_delta(publication, patch(base, data)))
        base = data
    return told
