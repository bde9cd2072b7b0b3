"""A run becomes pages, plots and the README's table."""

import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from bench import publish
from bench.cases import CASES
from bench.peers import PEERS
from bench.process import BenchError
from bench.report import base_of, markdown


def _data() -> dict[str, Any]:
    """Every case on every server that it is for, with made-up figures; one server failed."""
    runs: list[dict[str, Any]] = []
    for case in CASES.values():
        for number, peer in enumerate(peer for peer in PEERS.values() if case.wants(peer)):
            for round_ in range(1 if case.once else 2):
                entry = {"round": round_, "case": case.name, "peer": peer.name}
                if peer.name == "granian_rsgi":
                    runs.append({**entry, "error": "not installed: granian"})
                    continue
                result = {column.key: 10.0 + number + round_ for column in case.columns}
                runs.append({**entry, "result": result})
    machine = {"cpu": "CPU", "cores": 2, "virtual": True, "kernel": "K", "python": "P"}
    return {
        "name": "all",
        "started": "2026-01-02 03:04 UTC",
        "machine": {**machine, "compiler": "C"},
        "versions": {"fastws": "1"},
        "rounds": 2,
        "seconds": 1.0,
        "runs": runs,
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    text = f"# x\n\n{publish.BEGIN}\nold\n{publish.END}\n\nafter\n"
    (tmp_path / "README.md").write_text(text)
    return tmp_path


def test_everything_is_written(root: Path) -> None:
    source = root / "run.json"
    source.write_text(json.dumps(_data()))
    publish.publish(source, root)
    folder = root / "docs" / "benchmarks"
    page = (folder / "README.md").read_text()
    for case in CASES.values():
        assert f"## {case.title}" in page
    assert "not installed: granian" in page
    for name in ("lockstep", "sizes", "text", "memory", "gateway-latency"):
        assert f"({name}.svg)" in page
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / f"{name}.svg").read_text().count("<svg") == 1
    assert json.loads(lzma.decompress((folder / "results.json.xz").read_bytes())) == _data()
    readme = (root / "README.md").read_text()
    assert "old" not in readme
    assert readme.endswith("after\n")
    assert "| **fastws Listener** |" in readme


def test_the_same_run_gives_the_same_files(root: Path) -> None:
    source = root / "run.json"
    data = _data()
    data["runs"] = [run for run in data["runs"] if run["case"] in ("lockstep", "memory")]
    source.write_text(json.dumps(data))
    first = {file: file.read_bytes() for file in publish.publish(source, root)}
    assert {file: file.read_bytes() for file in publish.publish(source, root)} == first


def test_a_readme_without_its_marks_is_left_alone(root: Path) -> None:
    (root / "README.md").write_text("# x\n")
    (root / "run.json").write_text(json.dumps(_data()))
    with pytest.raises(BenchError, match="bench: begin"):
        publish.publish(root / "run.json", root)
    assert not (root / "docs" / "benchmarks").exists()


def test_the_readme_of_the_project_has_its_marks() -> None:
    assert "| **fastws Listener** |" in publish.readme(
        (publish.ROOT / "README.md").read_text(), _data()
    )


def test_each_case_is_compared_with_the_limit_or_with_ours() -> None:
    runs = _data()["runs"]
    assert base_of(runs, "lockstep") == "limit"
    assert base_of(runs, "tls-lockstep") == "fastws_listener"
    assert base_of(runs, "asgi-lockstep") == "uvicorn_fastws"
    assert base_of(runs, "heartbeats") == "gateway"


def test_errors_of_several_lines_stay_in_their_row() -> None:
    data = _data()
    data["runs"] = [{"round": 0, "case": "lockstep", "peer": "limit", "error": "a|b\nc"}]
    assert "| a/b; c |" in markdown(data, ())
