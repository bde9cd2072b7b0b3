"""TLS of the gateway's own ports: contexts made of what the configuration names."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509

from gateway.config import Config, ConfigError, Tls

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def make_context(section: str, settings: Tls) -> ssl.SSLContext | None:
    """The context of a listening port; ``None`` if TLS is off there.

    Raises `ConfigError` for files that cannot be read, hold no certificate or key, or do not
    belong together; ``section`` is the key they are under.
    """
    if not settings.enabled:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.min_version]
    context.set_alpn_protocols(["http/1.1"])  # RFC 6455 is about that one
    cert, key = settings.cert_pem_file, settings.key_pem_file
    try:
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(cert, key or None, password=lambda: b"")
    except (OSError, ValueError) as error:
        names = " and ".join(filter(None, (cert, key)))
        raise ConfigError(f"{section}: {names} cannot be used: {_reason(error)}") from None
    if settings.client_ca_pem_file:
        try:
            context.load_verify_locations(settings.client_ca_pem_file)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{section}.client_ca_pem_file = {settings.client_ca_pem_file!r} cannot be used: "
                f"{_reason(error)}"
            ) from None
        optional = settings.client_auth == "optional"
        context.verify_mode = ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED
    return context


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
    """Each certificate file in use, and the Unix time at which its first certificate ends."""
    for settings in (config.http_server.tls, config.http_server.internal_tls):
        if settings.enabled:
            try:
                content = Path(settings.cert_pem_file).read_bytes()
                found = x509.load_pem_x509_certificate(content)
            except (OSError, ValueError):
                continue  # it has changed since it was loaded
            yield settings.cert_pem_file, found.not_valid_after_utc.timestamp()
