"""The cases and their servers fit together, and a plan runs what it says."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench import compare
from bench.__main__ import _RUNS
from bench.cases import CASES, Fanout, Heartbeats, StalledFanout
from bench.goals import GOALS
from bench.peers import PEERS
from bench.process import free_port, peer_command, server


@pytest.mark.parametrize("name", list(CASES))
def test_every_case_has_servers_that_it_is_for(name: str) -> None:
    assert [peer for peer in PEERS.values() if CASES[name].wants(peer)]


def test_every_server_is_in_a_case() -> None:
    for peer in PEERS.values():
        assert any(case.wants(peer) for case in CASES.values()), peer.name


def test_every_goal_is_about_a_case_and_servers_that_it_is_for() -> None:
    for goal in GOALS:
        assert CASES[goal.case].wants(PEERS[goal.peer]), goal
        assert not goal.against or CASES[goal.case].wants(PEERS[goal.against]), goal
        assert goal.key in {column.key for column in CASES[goal.case].columns}, goal


@pytest.mark.parametrize("run", _RUNS, ids=lambda run: run[0])
def test_every_named_run_is_a_plan(run: tuple[str, str, str, int, float, str]) -> None:
    name, cases, peers, rounds, seconds, _ = run
    plan = compare.plan(name, cases, peers, rounds, seconds)
    turns = list(compare._turns(plan))
    assert {case.name for _, case, _ in turns} == set(cases.split(","))
    assert all(round_ == 0 for round_, case, _ in turns if case.once)
    assert max(round_ for round_, _, _ in turns) == rounds - 1


def test_rounds_begin_with_another_server_each() -> None:
    plan = compare.plan("x", "lockstep", "limit,fastws_listener,aiohttp_server", 3, 1)
    order = [peer.name for _, _, peer in compare._turns(plan)]
    assert order[0::3] == ["limit", "fastws_listener", "aiohttp_server"]


def test_a_run_leaves_its_raw_results_and_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compare, "RESULTS", tmp_path)
    plan = compare.plan("x", "pipelined,handshakes", "limit,fastws_listener", 2, 0.5)
    assert compare.execute(plan) == 0
    assert "| C epoll (limit) |" in capsys.readouterr().out
    data = json.loads(next(tmp_path.glob("x-*.json")).read_text())
    assert len(data["runs"]) == 8
    assert next(tmp_path.glob("x-*.md")).read_text().startswith("# Benchmark, ")


@pytest.mark.parametrize("name", ["limit", "fastws_listener", "uwebsockets_cpp"])
def test_who_never_reads_does_not_keep_the_others_waiting(name: str, tmp_path: Path) -> None:
    if reason := PEERS[name].missing():
        pytest.skip(reason)
    case = CASES["fanout-stalled"]
    assert isinstance(case, StalledFanout)
    port = free_port()
    with server(peer_command(name, port, "broadcast"), port, tmp_path / "log") as pid:
        result = replace(case, connections=20, stalled=2).run(PEERS[name], port, pid, 0.3)
    assert result["deliveries"] == result["rounds"] * 20 * 16
    assert result["peak_mib"] > 0


def test_publications_at_a_rate_count_from_when_they_were_due(tmp_path: Path) -> None:
    case = CASES["gateway-latency"]
    assert isinstance(case, Fanout)
    port = free_port()
    with server(peer_command("limit", port, "broadcast"), port, tmp_path / "log") as pid:
        result = replace(case, connections=5).run(PEERS["limit"], port, pid, 0.5)
    assert 3 <= result["rounds"] <= 110
    assert result["p50_us"] > 0


def test_several_processes_of_a_gateway_answer_for_their_heartbeats(tmp_path: Path) -> None:
    case = CASES["heartbeats"]
    assert isinstance(case, Heartbeats)
    case = replace(case, connections=60, workers=2, ping=7, intervals=1)
    port = free_port()
    more = case.server_arguments()
    command = peer_command("gateway", port, case.role, (), *more)
    with server(command, port, tmp_path / "log") as pid:
        result = case.run(PEERS["gateway"], port, pid, 1)
    assert result["lost"] == 0
    assert result["pings"] >= 30
    assert result["processes"] == 2
