"""The certificate of the servers under test, made when it is needed."""

from pathlib import Path

import trustme

_FOLDER = Path(__file__).parent / "build"


def certificate() -> str:
    """A file with a certificate for `localhost` (ECDSA, P-256) and its key.

    Beside it are the parts, `chain.pem` and `key.pem`, and `authority.pem`, who issued it.
    """
    path = _FOLDER / "certificate.pem"
    if not (path.exists() and (_FOLDER / "authority.pem").exists()):
        _FOLDER.mkdir(exist_ok=True)
        authority = trustme.CA()
        pair = authority.issue_cert("localhost", "127.0.0.1")
        authority.cert_pem.write_to_path(str(_FOLDER / "authority.pem"))
        pair.private_key_pem.write_to_path(str(_FOLDER / "key.pem"))
        pair.cert_chain_pems[0].write_to_path(str(_FOLDER / "chain.pem"))
        pair.private_key_and_cert_chain_pem.write_to_path(str(path))
    return str(path)
