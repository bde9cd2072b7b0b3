"""What is logged at which level."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

from gateway import log
from gateway.config import load


@pytest.fixture
def loggers() -> Iterator[None]:
    """Leaves them as they were."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("loggers")
@pytest.mark.parametrize(
    ("level", "said"),
    [
        ("trace", ["debug", "info", "warning", "error", "critical"]),
        ("debug", ["debug", "info", "warning", "error", "critical"]),
        ("info", ["info", "warning", "error", "critical"]),
        ("warn", ["warning", "error", "critical"]),
        ("warning", ["warning", "error", "critical"]),
        ("error", ["error", "critical"]),
        ("fatal", ["critical"]),
        ("none", []),
    ],
)
def test_levels_have_centrifugos_names(
    level: str, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure(load(flags={"log.level": level, "log.format": "json"}).log)
    names = ["debug", "info", "warning", "error", "critical"]
    logger = structlog.get_logger()
    for name in names:
        getattr(logger, name)(f"by {name}")
    lines = capsys.readouterr().err.splitlines()
    assert [name for name in names if any(f"by {name}" in line for line in lines)] == said
