"""Every server under test that is installed does what the cases ask; the others say why not."""

import json
from pathlib import Path

import pytest

from bench.certificate import certificate
from bench.deflate import NO_TAKEOVER, check_echo
from bench.dialects import PLAIN
from bench.peers import PEERS, Peer, _programs
from bench.peers.__main__ import install
from bench.process import free_port, peer_command, run_load, server, wait_for_upgrade

_BRIEF = ["--connections", "3", "--warmup", "0.1", "--duration", "1", "--timeout", "20"]


def _those(role: str, feature: str = "") -> list[str]:
    return [
        name
        for name, peer in PEERS.items()
        if role in peer.roles and (not feature or feature in peer.features)
    ]


def _here(name: str) -> Peer:
    if reason := PEERS[name].missing():
        pytest.skip(reason)
    return PEERS[name]


@pytest.mark.parametrize("payload", ["binary", "emoji"])
@pytest.mark.parametrize("role", ["echo", "asgi"])
@pytest.mark.parametrize("name", list(PEERS))
def test_it_echoes(name: str, role: str, payload: str, tmp_path: Path) -> None:
    if role not in PEERS[name].roles:
        pytest.skip(f"not one for {role}")
    _here(name)
    port = free_port()
    arguments = [*_BRIEF, "--depth", "4", "--size", "70000", "--payload", payload]
    with server(peer_command(name, port, role), port, tmp_path / "log") as pid:
        assert run_load(port, pid, arguments, 30)["messages"] > 3


@pytest.mark.parametrize("name", _those("echo", "tls"))
def test_it_echoes_over_tls(name: str, tmp_path: Path) -> None:
    _here(name)
    port = free_port()
    certificate()
    command = peer_command(name, port, features=("tls",))
    with server(command, port, tmp_path / "log") as pid:
        assert run_load(port, pid, [*_BRIEF, "--tls"], 30)["messages"] > 3


@pytest.mark.parametrize("name", _those("echo", "deflate"))
def test_it_deflates(name: str, tmp_path: Path) -> None:
    _here(name)
    port = free_port()
    command = peer_command(name, port, features=("deflate",))
    with server(command, port, tmp_path / "log"):
        check_echo(port, NO_TAKEOVER, 1024)


@pytest.mark.parametrize("name", _those("broadcast"))
def test_it_reaches_everybody(name: str, tmp_path: Path) -> None:
    peer = _here(name)
    port = free_port()
    arguments = ["--mode", "fanout", "--connections", "20", "--rounds", "5", "--burst", "2"]
    arguments += [*peer.dialect.publishing(100, port), "--warmup", "0.5", "--timeout", "10"]
    with server(peer_command(name, port, "broadcast"), port, tmp_path / "log") as pid:
        wait_for_upgrade(port, peer.dialect.path)
        result = run_load(port, pid, arguments, 40)
    assert result["deliveries"] == 20 * 5 * 2
    if peer.dialect is PLAIN:
        assert result["bytes_per_delivery"] == 100


def test_what_could_not_be_installed_is_a_row_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise _programs.NotInstalled("there is no go")

    monkeypatch.setattr(_programs, "REASONS", tmp_path / "reasons.json")
    monkeypatch.setattr("bench.peers.__main__.REASONS", tmp_path / "reasons.json")
    program = _programs.Program("centrifugo", lambda: "", lambda: "1", fails)
    monkeypatch.setitem(_programs.PROGRAMS, "centrifugo", program)
    assert "python -m bench.peers install centrifugo" in program.missing()
    assert install(["centrifugo"], again=False) == 1
    assert "there is no go" in capsys.readouterr().out
    assert program.missing() == "could not be installed: there is no go"
    assert json.loads((tmp_path / "reasons.json").read_text()) == {"centrifugo": "there is no go"}


def test_versions_are_pinned() -> None:
    lines = (_programs.HERE / "requirements.txt").read_text().splitlines()
    assert all("==" in line for line in lines if not line.startswith("#"))
    package = json.loads((_programs.NODE_FOLDER / "package.json").read_text())
    assert all(version[0].isdigit() for version in package["dependencies"].values())
