"""TLS of the gateway's own ports: contexts made of what the configuration names."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509

from gateway.config import Config, ConfigError, Tls

_BEGIN = b"-----BEGIN "  # RFC 7468 3

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def make_context(section: str, settings: Tls) -> ssl.SSLContext | None:
    """The context of a listening port; ``None`` if TLS is off there.

    Raises `ConfigError` for files that cannot be read, for what holds no certificate or key, or
    does not belong together; ``section`` is the key they are under.
    """
    if not settings.enabled:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.min_version]
    context.set_alpn_protocols(["http/1.1"])  # RFC 6455 is about that one
    given = {name: getattr(settings, name) for name in ("cert_pem", "key_pem")}
    try:
        with _file(settings.cert_pem) as cert, _file(settings.key_pem) as key:
            # Without a password OpenSSL would ask for one on the terminal.
            context.load_cert_chain(cert, key or None, password=lambda: b"")
    except (OSError, ValueError) as error:
        names = " and ".join(_name(name, value) for name, value in given.items() if value)
        raise ConfigError(f"{section}: {names} cannot be used: {_reason(error)}") from None
    if settings.client_ca_pem:
        try:
            with _file(settings.client_ca_pem) as authorities:
                context.load_verify_locations(authorities)
        except (OSError, ValueError) as error:
            name = _name("client_ca_pem", settings.client_ca_pem)
            raise ConfigError(f"{section}: {name} cannot be used: {_reason(error)}") from None
        optional = settings.client_auth == "optional"
        context.verify_mode = ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED
    return context


def _pem(value: str) -> bytes | None:
    """The PEM that a value is, as it is or in base64; None for a path."""
    text = value.encode()
    if _BEGIN in text:
        return text
    try:
        text = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return text if _BEGIN in text else None


def _name(key: str, value: str) -> str:
    """How a value is called in messages: a key is nobody's business."""
    return value if _pem(value) is None else key


@contextlib.contextmanager
def _file(value: str) -> Iterator[str]:
    """A path to what a value has. OpenSSL reads files only; where there is one in memory, a private
    key need not come on a disk.
    """
    pem = _pem(value)
    if pem is None:
        yield value
    elif hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
        with open(os.memfd_create("pem"), "wb", buffering=0) as file:
            file.write(pem)
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.TemporaryDirectory() as directory:  # for the owner only
            path = Path(directory, "pem")
            path.write_bytes(pem)
            yield str(path)


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def make_contexts(config: Config) -> tuple[ssl.SSLContext | None, ssl.SSLContext | None]:
    """Of the port for clients, and of the internal one. Raises `ConfigError`."""
    server = config.http_server
    section, internal = "http_server.internal_tls", server.internal_tls
    if not internal.enabled and not server.tls_external:
        section, internal = "http_server.tls", server.tls
    return make_context("http_server.tls", server.tls), make_context(section, internal)


def expiries(config: Config) -> Iterator[tuple[str, float]]:
    """Each certificate in use, by its file or its key, and the Unix time at which the first in it
    ends.
    """
    server = config.http_server
    for section, settings in (("tls", server.tls), ("internal_tls", server.internal_tls)):
        if settings.enabled:
            try:
                content = _pem(settings.cert_pem) or Path(settings.cert_pem).read_bytes()
                found = x509.load_pem_x509_certificate(content)
            except (OSError, ValueError):
                continue  # it has changed since it was loaded
            name = _name(f"http_server.{section}.cert_pem", settings.cert_pem)
            yield name, found.not_valid_after_utc.timestamp()
