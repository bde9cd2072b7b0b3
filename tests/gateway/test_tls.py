"""The gateway's own TLS, certificates that are renewed, and the internal port."""

from __future__ import annotations

import base64
import ssl
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidMessage

from gateway.config import ConfigError, load
from gateway.server import Gateway
from gateway.tls import expiries
from tests.gateway.test_gateway import Client, client, make, url

CA = trustme.CA()

# In TLS 1.3 a client hears of it when it reads.
REFUSED = (ssl.SSLError, EOFError, ConnectionError, InvalidMessage)


class Files:
    """Certificate and key in files, which may be written again."""

    def __init__(self, directory: Path) -> None:
        self.cert, self.key = directory / "cert.pem", directory / "key.pem"
        self.renew()

    def renew(self, name: str = "127.0.0.1") -> None:
        issued = CA.issue_cert(name)
        self.key.write_bytes(issued.private_key_pem.bytes())
        self.cert.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))

    def flags(self, section: str = "tls", **more: Any) -> dict[str, Any]:
        values: dict[str, Any] = {"enabled": True, "cert_pem": str(self.cert)}
        values["key_pem"] = str(self.key)
        values |= more
        return {f"http_server__{section}__{key}": value for key, value in values.items()}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    CA.configure_trust(context)
    return context


def again(gateway: Gateway, **flags: Any) -> None:
    """Reload with the same configuration, and ``flags``."""
    keys = {key.replace("__", "."): value for key, value in flags.items()}
    gateway.reload(load(flags={"dev": True, "http_server.port": 0, **keys}))


async def secure_client(gateway: Gateway, **options: Any) -> Client:
    options.setdefault("ssl", trusting())
    made = Client(await connect(url(gateway, scheme="wss"), compression=None, **options))
    assert "connect" in await made.ask({"connect": {}})
    return made


@pytest.mark.usefixtures("loop_kind")
async def test_websockets_and_http_are_spoken_over_tls(files: Files, loop_kind: str) -> None:
    async with make(**files.flags()) as gateway, await secure_client(gateway) as ws:
        assert "subscribe" in await ws.ask({"subscribe": {"channel": "a"}})
        async with aiohttp.ClientSession() as http:
            where = url(gateway, "/metrics", scheme="https")
            async with http.get(where, ssl=trusting()) as response:
                text = await response.text()
    assert f'fastws_certificate_expiry_seconds{{file="{files.cert}"}}' in text


@pytest.mark.usefixtures("loop_kind")
async def test_a_renewed_certificate_is_for_new_clients_and_drops_nobody(
    files: Files, loop_kind: str
) -> None:
    async with make(**files.flags()) as gateway, await secure_client(gateway) as old:
        files.renew("new.test")
        again(gateway, **files.flags())
        async with await secure_client(gateway, server_hostname="new.test"):
            assert "subscribe" in await old.ask({"subscribe": {"channel": "a"}})


async def test_a_bad_certificate_refuses_the_whole_reload(files: Files) -> None:
    async with make(**files.flags()) as gateway:
        other = trustme.CA().issue_cert("other.test")
        files.key.write_bytes(other.private_key_pem.bytes())
        with pytest.raises(ConfigError, match=r"http_server\.tls: .*cert\.pem and .*key\.pem"):
            again(gateway, **files.flags(), client__channel_limit=1)
        files.cert.unlink()
        with pytest.raises(ConfigError, match=r"cannot be used: No such file"):
            again(gateway, **files.flags())
        assert gateway.config.client.channel_limit == 128
        async with await secure_client(gateway):
            pass


async def test_what_else_is_wrong_with_a_reload_leaves_the_certificate(files: Files) -> None:
    async with make(**files.flags()) as gateway:
        before = gateway.server.ssl
        with pytest.raises(ConfigError):
            again(gateway, **files.flags(), client__token__rsa_public_key="x")
        assert gateway.server.ssl is before


async def test_turning_tls_off_takes_a_restart(files: Files) -> None:
    async with make(**files.flags()) as gateway:
        again(gateway)
        assert gateway.config.http_server.tls.enabled
        async with await secure_client(gateway):
            pass


async def test_clients_need_a_certificate_where_one_is_asked_for(
    files: Files, tmp_path: Path
) -> None:
    authority, another = trustme.CA(), trustme.CA()
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    flags = files.flags(client_ca_pem=str(ca))
    mine = trusting()
    authority.issue_cert("me@client.test").configure_cert(mine)
    async with make(**flags) as gateway:
        async with await secure_client(gateway, ssl=mine):
            pass
        with pytest.raises(REFUSED):
            await secure_client(gateway)
        another.cert_pem.write_to_path(str(ca))
        again(gateway, **flags)
        with pytest.raises(REFUSED):
            await secure_client(gateway, ssl=mine)
        again(gateway, **flags, http_server__tls__client_auth="optional")
        async with await secure_client(gateway):
            pass


async def test_older_versions_of_tls_are_refused(files: Files) -> None:
    context = trusting()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with make(**files.flags(min_version="1.3")) as gateway:
        with pytest.raises(REFUSED):
            await secure_client(gateway, ssl=context)


async def test_over_tls_a_page_that_came_without_is_another_origin(files: Files) -> None:
    async with make(**files.flags()) as gateway, aiohttp.ClientSession() as http:
        for scheme, status in (("http", 403), ("https", 101)):
            where = url(gateway, scheme="https")
            headers = {
                "Origin": f"{scheme}://127.0.0.1:{gateway.port}",
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                "Sec-WebSocket-Version": "13",
            }
            async with http.get(where, ssl=trusting(), headers=headers) as response:
                assert response.status == status
                response.close()


@pytest.mark.parametrize("in_base64", [False, True])
@pytest.mark.parametrize("in_memory", [False, True])
async def test_certificates_may_stand_in_the_configuration(
    files: Files, monkeypatch: pytest.MonkeyPatch, in_base64: bool, in_memory: bool
) -> None:
    if not in_memory:
        monkeypatch.delattr("os.memfd_create", raising=False)

    def text(content: bytes) -> str:
        return base64.b64encode(content).decode() if in_base64 else content.decode()

    authority, mine = trustme.CA(), trusting()
    authority.issue_cert("me@client.test").configure_cert(mine)
    flags = files.flags(
        cert_pem=text(files.cert.read_bytes()),
        key_pem=text(files.key.read_bytes()),
        client_ca_pem=text(authority.cert_pem.bytes()),
    )
    async with make(**flags) as gateway:
        async with await secure_client(gateway, ssl=mine):
            pass
        with pytest.raises(REFUSED):
            await secure_client(gateway)
        [(name, end)] = expiries(gateway.config)
        assert name == "http_server.tls.cert_pem" and end > time.time()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "needs http_server.tls.cert_pem"),
        ({"cert_pem": "/nowhere"}, "/nowhere cannot be used: No such file or directory"),
        ({"cert_pem": __file__}, "cannot be used"),
        ({"cert_pem": "-----BEGIN nothing"}, "http_server.tls: cert_pem cannot be used"),
        ({"cert_pem": "/nowhere", "key_pem": "-----BEGIN x"}, "/nowhere and key_pem cannot"),
    ],
)
def test_a_configuration_without_a_certificate_is_refused(
    values: dict[str, str], said: str
) -> None:
    flags = {f"http_server.tls.{key}": value for key, value in {"enabled": True, **values}.items()}
    with pytest.raises(ConfigError) as error:
        Gateway(load(flags=flags))
    assert said in str(error.value)


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(files: Files) -> None:
    from cryptography.hazmat.primitives import serialization as form

    key = form.load_pem_private_key(files.key.read_bytes(), None)
    encryption = form.BestAvailableEncryption(b"secret")
    pem = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, encryption)
    files.key.write_bytes(pem)
    with pytest.raises(ConfigError, match="cannot be used"):
        make(**files.flags())


# --- the internal port


async def statuses(gateway: Gateway, port: int, **options: Any) -> dict[str, int]:
    found = {}
    async with aiohttp.ClientSession() as http:
        for path in ("/health", "/metrics", "/", "/api/info", "/connection/websocket"):
            scheme = "https" if options else "http"
            call = http.post if path.startswith("/api") else http.get
            async with call(f"{scheme}://127.0.0.1:{port}{path}", **options) as response:
                found[path] = response.status
    return found


async def test_operators_have_a_port_of_their_own(files: Files) -> None:
    options = files.flags("internal_tls")
    async with make(
        http_server__internal_port=0,
        http_api__key="key",
        **options,
    ) as gateway:
        outside = await statuses(gateway, gateway.port)
        inside = await statuses(gateway, gateway.internal_port, ssl=trusting())
        async with await client(gateway):
            pass
    assert outside == {
        "/health": 200,
        "/metrics": 404,
        "/": 200,
        "/api/info": 404,
        "/connection/websocket": 426,
    }
    assert inside == {
        "/health": 200,
        "/metrics": 200,
        "/": 404,
        "/api/info": 401,
        "/connection/websocket": 404,
    }


async def test_the_api_may_be_on_the_port_for_clients_all_the_same() -> None:
    flags = {"http_server__internal_port": 0, "http_api__key": "key", "http_api__external": True}
    async with make(**flags) as gateway:
        outside = await statuses(gateway, gateway.port)
        inside = await statuses(gateway, gateway.internal_port)
    assert (outside["/api/info"], outside["/metrics"]) == (401, 404)
    assert (inside["/api/info"], inside["/metrics"]) == (404, 200)


@pytest.mark.parametrize("external", [False, True])
async def test_the_internal_port_has_tls_too_unless_that_is_for_clients_only(
    files: Files, external: bool
) -> None:
    flags = files.flags() | {"http_server__tls_external": external}
    async with make(http_server__internal_port=0, **flags) as gateway:
        options = {} if external else {"ssl": trusting()}
        assert (await statuses(gateway, gateway.internal_port, **options))["/metrics"] == 200
        async with await secure_client(gateway):
            pass
        files.renew("new.test")
        again(gateway, http_server__internal_port=0, **flags)
        assert (gateway._contexts[1] is None) == external


async def test_an_internal_port_that_is_taken_stops_the_start_and_leaves_nothing() -> None:
    async with make() as other:
        gateway = make(
            http_server__internal_address="127.0.0.1", http_server__internal_port=other.port
        )
        with pytest.raises(OSError, match="cannot listen"):
            await gateway.start()
