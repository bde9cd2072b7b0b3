"""Certificates for tests, made anew in each run."""

from __future__ import annotations

import functools
import ssl
from pathlib import Path

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


def authority_file(folder: Path) -> Path:
    """PEM of whom those clients trust, for programs of others."""
    path = folder / "authority.pem"
    _authority().cert_pem.write_to_path(str(path))
    return path


def server_file(folder: Path) -> Path:
    """PEM of the private key and certificate of a server called ``127.0.0.1``, likewise."""
    path = folder / "server.pem"
    _authority().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(path))
    return path


def client_context() -> ssl.SSLContext:
    """For a client that trusts those servers, and checks their names."""
    context = ssl.create_default_context()
    _authority().configure_trust(context)
    return context
