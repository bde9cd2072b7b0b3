"""Turns raw results into plots: SVG for pages, PNG for everything else."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.cases import CASES
from bench.report import Runs, labels_of, middle, select


@dataclass(frozen=True)
class Plot:
    """Something to draw, and how high in inches it wants to be."""

    draw: Callable[[Axes], None]
    height: float


_OURS, _LIMIT, _OTHERS = "#c2410c", "#111827", "#9ca3af"
_STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "svg.hashsalt": "fastws",
    "svg.fonttype": "none",
}
_SIZES = {
    "16 B": "-16b",
    "128 B": "",
    "1 KiB": "-1kib",
    "16 KiB": "-16kib",
    "1 MiB": "-1mib",
}
_KINDS = {"ASCII": "text", "two-byte": "latin", "CJK": "cjk", "emoji": "emoji"}


def _color(peer: str) -> str:
    if peer == "limit":
        return _LIMIT
    return _OURS if "fastws" in peer or peer == "gateway" else _OTHERS


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _bars(runs: Runs, case: str, key: str, unit: str) -> Plot | None:
    """One figure of all servers in a case, the best above. None when nobody has it."""
    labels = labels_of(runs)
    found = {peer: middle(select(runs, case, peer), key) for peer in labels}
    values = {peer: value for peer, value in found.items() if value}
    if not values:
        return None
    high = next(column.best == "high" for column in CASES[case].columns if column.key == key)
    order = sorted(values, key=lambda peer: values[peer], reverse=not high)

    def draw(axes: Axes) -> None:
        figures = [values[peer] for peer in order]
        bars = axes.barh([labels[peer] for peer in order], figures, color=list(map(_color, order)))
        axes.bar_label(bars, [_number(value) for value in figures], padding=3, fontsize=8)
        axes.set_title(CASES[case].title)
        axes.set_xlabel(unit)
        axes.set_xlim(0, max(figures) * 1.15)
        if max(figures) > 30 * min(figures):
            axes.set_xscale("log")
            axes.set_xlim(min(figures) / 2, max(figures) * 3)

    return Plot(draw, 0.24 * len(order) + 0.9)


def _lines(runs: Runs, points: Mapping[str, str], key: str, title: str, unit: str) -> Plot | None:
    """One figure of all servers over several cases: `points` names them for the axis."""
    labels = labels_of(runs)
    series: dict[str, list[float]] = {}
    for peer in labels:
        values = [middle(select(runs, case, peer), key) for case in points.values()]
        if any(values):
            series[peer] = [value or float("nan") for value in values]
    if not series:
        return None

    def draw(axes: Axes) -> None:
        greys = iter(["-", "--", "-.", ":"] * 8)
        markers = iter("osv^Dx+*<>ph" * 3)
        for peer, values in series.items():
            ours = _color(peer) != _OTHERS
            axes.plot(
                list(points),
                values,
                next(greys) if not ours else "-",
                marker=next(markers),
                markersize=4,
                linewidth=2 if ours else 1,
                color=_color(peer),
                alpha=0.6 if peer == "fastws_coroutine" else 1,
                label=labels[peer],
            )
        axes.set_yscale("log")
        axes.set_title(title)
        axes.set_ylabel(unit)
        axes.grid(axis="y", alpha=0.3)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)

    return Plot(draw, 4.2)


def _plots(runs: Runs) -> dict[str, Plot | None]:
    cpu, rate = "server_cpu_us", "per_second"
    per_message = "CPU of the server, us/message"
    return {
        "lockstep": _bars(runs, "lockstep", cpu, per_message),
        "pipelined": _bars(runs, "pipelined", rate, "messages/s"),
        "sizes": _lines(
            runs,
            {size: f"lockstep{name}" for size, name in _SIZES.items()},
            cpu,
            "Echo, one in flight",
            per_message,
        ),
        "sizes-pipelined": _lines(
            runs,
            {size: f"pipelined{name}" for size, name in _SIZES.items()},
            cpu,
            "Echo, 16 in flight",
            per_message,
        ),
        "text": _lines(
            runs,
            {kind: f"pipelined-{name}" for kind, name in _KINDS.items()},
            rate,
            "Echo of 128 B text, 16 in flight",
            "messages/s",
        ),
        "connections": _lines(
            runs,
            {
                "1": "lockstep-1",
                "100": "lockstep",
                "1,000": "lockstep-1000",
                "10,000": "lockstep-10000",
            },
            cpu,
            "Echo of 128 B, one in flight, by connections",
            per_message,
        ),
        "handshakes": _bars(runs, "handshakes", cpu, "CPU of the server, us/handshake"),
        "memory": _bars(runs, "memory", "pss_per_connection", "bytes/connection"),
        "memory-tls": _bars(runs, "memory-tls", "pss_per_connection", "bytes/connection"),
        "fanout": _bars(runs, "fanout-10k-burst", cpu, "CPU of the server, us/delivery"),
        "tls": _bars(runs, "tls-pipelined", rate, "messages/s"),
        "deflate": _bars(runs, "deflate-1k", cpu, per_message),
        "gateway-fanout": _bars(runs, "gateway-fanout", cpu, "CPU of the server, us/delivery"),
        "gateway-memory": _bars(runs, "gateway-memory", "pss_per_connection", "bytes/connection"),
        "gateway-latency": _bars(runs, "gateway-latency", "p99_us", "p99, us"),
    }


def draw(runs: Runs, folder: Path) -> Sequence[str]:
    """Writes the plots for which there are figures; returns their names, without suffix."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    with mpl.rc_context(cast(Any, _STYLE)):
        for name, plot in _plots(runs).items():
            if plot is None:
                continue
            figure = Figure(figsize=(8, plot.height), layout="constrained")
            plot.draw(figure.subplots())
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
            figure.savefig(folder / f"{name}.png", dpi=120, metadata={"Software": None})
            drawn.append(name)
    return drawn
