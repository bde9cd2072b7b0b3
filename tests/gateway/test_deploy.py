"""The files in deploy/, with the programs that they are for."""

from __future__ import annotations

import asyncio
import configparser
import contextlib
import json
import os
import re
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from websockets.asyncio.client import connect

from gateway.app import App, ConnectEvent, ConnectReply
from gateway.config import Config, load
from gateway.engines import MemoryEngine
from gateway.metrics import NodeCollector
from gateway.node import Node
from gateway.server import Gateway
from tests.gateway.test_gateway import Client

DEPLOY = Path(__file__).parents[2] / "deploy"
NAME = "realtime.example.com"
CA = trustme.CA()


class Asked(App):
    """Lets everyone in, and remembers where they come from."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    async def connect(self, event: ConnectEvent, headers: Any) -> ConnectReply:
        self.addresses.append(event.address)
        return ConnectReply()


def program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is missing; tools/setup.sh proxies installs it")
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def adapted(path: str, **replacements: str) -> str:
    """A file of deploy/ with what a test has to have in other places."""
    text = (DEPLOY / path).read_text()
    for old, new in replacements.items():
        assert old in text
        text = text.replace(old, new)
    return text


@contextlib.asynccontextmanager
async def running(port: int, *command: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(*command)
    try:
        for _ in range(500):
            assert process.returncode is None, f"{command[0]} has ended"
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            await asyncio.sleep(0.02)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def settings_of(path: str) -> str:
    """The gateway's configuration that a file of deploy/ asks for in its first comment."""
    lines = (DEPLOY / path).read_text().partition("\n\n")[0].splitlines()
    return "\n".join(line.removeprefix("#").strip() for line in lines[1:])


def gateway_for(path: str, file: Path, app: App, **flags: Any) -> Gateway:
    file.write_text(settings_of(path))
    keys = {key.replace("__", "."): value for key, value in flags.items()}
    return Gateway(load(file, flags=keys), app)


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    CA.configure_trust(context)
    return context


async def speak(port: int, app: Asked) -> None:
    """What has to work through a proxy: WebSockets in both directions, HTTP, and who one is."""
    at = {"host": "127.0.0.1", "port": port, "ssl": trusting()}
    # The claim is of no use: the proxy has seen where we come from.
    claim = {"X-Forwarded-For": "1.1.1.1", "Forwarded": "for=1.1.1.1"}
    uri = f"wss://{NAME}/connection/websocket"
    origin = {"Origin": f"https://{NAME}"}
    ws = await connect(uri, additional_headers={**claim, **origin}, compression=None, **at)
    async with Client(ws) as client:
        assert "connect" in await client.ask({"connect": {}})
        assert await client.ask({"ping": {}}) == {"id": 7, "ping": {}}
    assert app.addresses == ["127.0.0.1"]
    async with aiohttp.ClientSession() as http:
        for path, status in (("/health", 200), ("/metrics", 404), ("/api/info", 404)):
            where = f"https://127.0.0.1:{port}{path}"
            options: dict[str, Any] = {"ssl": trusting(), "server_hostname": NAME}
            async with http.get(where, **options) as response:
                assert response.status == status, path


async def test_nginx_in_front_of_a_unix_socket(tmp_path: Path) -> None:
    nginx = program("nginx")
    issued, port, path = CA.issue_cert(NAME), free_port(), tmp_path / "gateway.sock"
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "cert.pem"))
    site = adapted(
        "nginx/fastws-gateway.conf",
        **{
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "/run/fastws-gateway/gateway.sock": str(path),
            f"/etc/ssl/certs/{NAME}.pem": str(tmp_path / "cert.pem"),
            f"/etc/ssl/private/{NAME}.key": str(tmp_path / "cert.pem"),
        },
    )
    (tmp_path / "site.conf").write_text(site)
    places = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if os.geteuid() == 0 else ""  # nobody else may look into tmp_path
    (tmp_path / "nginx.conf").write_text(
        f"{user}daemon off;\nworker_processes 1;\npid {tmp_path}/pid;\nerror_log stderr warn;\n"
        "events {}\n"
        f"http {{\n{places}access_log off;\ninclude {tmp_path}/site.conf;\n}}\n"
    )
    app = Asked()
    address = f"unix:{path}"
    async with (
        gateway_for(
            "nginx/fastws-gateway.conf",
            tmp_path / "gateway.toml",
            app,
            http_server__address=address,
        ),
        running(port, nginx, "-c", str(tmp_path / "nginx.conf"), "-e", "stderr"),
    ):
        await speak(port, app)


async def test_haproxy_with_the_proxy_protocol(tmp_path: Path) -> None:
    haproxy = program("haproxy")
    issued, port, file = CA.issue_cert(NAME), free_port(), "haproxy/haproxy.cfg"
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "cert.pem"))
    app = Asked()
    config = tmp_path / "gateway.toml"
    async with gateway_for(file, config, app, http_server__port=0) as gateway:
        (tmp_path / "haproxy.cfg").write_text(
            adapted(
                file,
                **{
                    "bind :443": f"bind 127.0.0.1:{port}",
                    f"/etc/haproxy/{NAME}.pem": str(tmp_path / "cert.pem"),
                    "127.0.0.1:8000": f"127.0.0.1:{gateway.port}",
                    "maxconn 100000": "maxconn 100",
                    # Its checks run in this test's own loop, and may take their time.
                    "inter 2s": "inter 100ms fall 1000",
                },
            )
        )
        async with running(port, haproxy, "-db", "-q", "-f", str(tmp_path / "haproxy.cfg")):
            await asyncio.sleep(0.2)  # checks of its health begin
            await speak(port, app)
        acceptor: Any = gateway.server._listening[0]
        assert acceptor.refused == 0


TCP_HAPROXY = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen realtime
    bind 127.0.0.1:{port}
    server gateway1 127.0.0.1:{gateway} {header}
"""


@pytest.mark.parametrize("header", ["send-proxy", "send-proxy-v2-ssl-cn"])
async def test_haproxy_in_front_of_the_gateways_own_tls(tmp_path: Path, header: str) -> None:
    haproxy = program("haproxy")
    port, pem, app = free_port(), tmp_path / "cert.pem", Asked()
    CA.issue_cert(NAME, "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
    keys = {
        "http_server.port": 0,
        "http_server.trusted_proxies": ["127.0.0.1"],
        "http_server.proxy_protocol": True,
        "http_server.forwarded_header": "none",  # the client is on a trusted address itself
        "http_server.internal_address": "127.0.0.1",
        "http_server.internal_port": 0,
        "http_server.tls.enabled": True,
        "http_server.tls.cert_pem": str(pem),
    }
    async with Gateway(load(flags=keys), app) as gateway:
        file = tmp_path / "haproxy.cfg"
        file.write_text(TCP_HAPROXY.format(port=port, gateway=gateway.port, header=header))
        async with running(port, haproxy, "-db", "-q", "-f", str(file)):
            await speak(port, app)


def test_the_dashboard_has_every_metric_and_no_other() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "fastws-gateway.json").read_text())
    expressions = [
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])
    ]
    named = re.compile(r"\b(?:fastws|process)_\w+")
    shown = {name for text in expressions for name in named.findall(text)}
    families = list(NodeCollector(Node(Config(), MemoryEngine())).collect())
    counters = {f"{each.name}_total" for each in families if each.type == "counter"}
    gauges = {each.name for each in families if each.type == "gauge"}
    histograms = {each.name for each in families if each.type == "histogram"}
    parts = {f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count")}
    assert counters | gauges <= shown <= counters | gauges | parts
    assert {f"{name}_bucket" for name in histograms} <= shown
    for expression in expressions:  # what only grows is looked at as a rate, and nothing else is
        for name in named.findall(expression):
            assert (name not in gauges) == (f"rate({name}{{" in expression), expression
        assert expression.count("(") == expression.count(")")
    groups = [group for text in expressions for group in re.findall(r"by \(([\w, ]+)\)", text)]
    labels = {label for group in groups for label in group.split(", ")}
    known = {label for each in families for label in getattr(each, "_labelnames", ())}
    assert labels <= known | {"le"}


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "fastws-gateway.json").read_text())
    taken: set[tuple[int, int]] = set()
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken and max(x for x, _ in cells) < 24
        taken |= cells


@pytest.mark.parametrize("unit", sorted((DEPLOY / "systemd").glob("*.s*")), ids=lambda p: p.name)
def test_units_are_ini_files_with_an_executable_that_exists(unit: Path) -> None:
    if unit.suffix == ".sysusers":
        return
    parser = configparser.ConfigParser(strict=True, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(unit.read_text())
    if unit.suffix == ".service":
        command = parser["Service"]["ExecStart"]
        assert re.fullmatch(r"/\S+/fastws-gateway serve --config \S+", command)
        assert parser["Service"]["Type"] == "notify"
    else:
        assert parser["Socket"]["Service"] == "fastws-gateway.service"
        wanted = "internal" if "internal" in unit.name else "clients"
        assert parser["Socket"]["FileDescriptorName"] == wanted


def test_the_gateway_takes_the_configuration_of_the_kubernetes_manifest(tmp_path: Path) -> None:
    text = (DEPLOY / "kubernetes" / "fastws-gateway.yaml").read_text()
    embedded = text.partition("gateway.toml: |\n")[2].partition("---\n")[0]
    file = tmp_path / "gateway.toml"
    file.write_text("\n".join(line.removeprefix("    ") for line in embedded.splitlines()))
    variables = dict.fromkeys(re.findall(r"name: (FASTWS_\w+)", text), "x" * 32)
    assert variables
    config = load(file, variables)
    assert config.http_server.internal == ("0.0.0.0", 9000)
    assert config.client.token.hmac_secret_key and config.http_api.key
    stop = 5 + config.shutdown.timeout
    assert int(re.findall(r"terminationGracePeriodSeconds: (\d+)", text)[0]) > stop


def test_the_image_is_built_of_files_that_are_there() -> None:
    root = DEPLOY.parent
    text = (DEPLOY / "Dockerfile").read_text()
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert all((root / line[1:]).exists() for line in ignored if line.startswith("!"))
    variables = dict(re.findall(r"(FASTWS_HTTP\w+)=(\S+)", text))
    assert load(environ=variables).http_server.internal == ("0.0.0.0", 9000)
    assert "\nUSER 10001\n" in text and "\nHEALTHCHECK " in text
