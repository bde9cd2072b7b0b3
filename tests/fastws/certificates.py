"""Certificates for tests, made anew in each run."""

from __future__ import annotations

import functools
import ssl

import trustme


@functools.cache
def _authority() -> trustme.CA:
    return trustme.CA()


def server_context(*names: str) -> ssl.SSLContext:
    """For a server called ``names`` (by default ``localhost`` and ``127.0.0.1``)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = _authority().issue_cert(*(names or ("localhost", "127.0.0.1")))
    certificate.configure_cert(context)
    return context


def client_context() -> ssl.SSLContext:
    """For a client that trusts those servers, and checks their names."""
    context = ssl.create_default_context()
    _authority().configure_trust(context)
    return context
