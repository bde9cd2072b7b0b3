"""The certificate of the servers under test, made when it is needed."""

from pathlib import Path

import trustme

_PATH = Path(__file__).parent / "build" / "certificate.pem"


def certificate() -> str:
    """A file with a certificate for `localhost` (ECDSA, P-256) and its key."""
    if not _PATH.exists():
        _PATH.parent.mkdir(exist_ok=True)
        pair = trustme.CA().issue_cert("localhost", "127.0.0.1")
        pair.private_key_and_cert_chain_pem.write_to_path(str(_PATH))
    return str(_PATH)
