"""The figures of a comparison: error and success against stored bits, as SVG and PDF."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qvla_offline.compare.document import Comparison
from qvla_offline.compare.episodes import ALL_SUITES
from qvla_offline.compare.policies import ComparedPolicy
from qvla_offline.compare.starts import FLOAT
from qvla_ros.atomic import atomic_file
from qvla_ros.evaluation.plots import STYLE, policy_colours

FORMATS = ("svg", "pdf")
_MARKERS = "osD^vPX*<>"
Point = tuple[float, float, float, float]  # bits, value, low, high


def write_figures(comparison: Comparison, folder: Path) -> list[Path]:
    """Writes error.* and, with episodes, success.*; returns the files. No figure without points."""
    written = []
    errors = {
        p.name: (p.error.mean, p.error.low, p.error.high) for p in comparison.policies if p.error
    }
    with _figure() as (figure, axes):
        if _draw(axes, _lines(comparison.policies, errors)):
            axes.set(yscale="log", xlabel="stored bits of a weight, scales included")
            axes.set_ylabel("action error, squared normalised actions")
            written += _save(figure, folder, "error")
    rates = {
        r.policy: (100 * r.successes / r.trials, 100 * r.interval[0], 100 * r.interval[1])
        for r in comparison.results
        if r.suite == ALL_SUITES and r.trials
    }
    with _figure() as (figure, axes):
        quantized = [policy for policy in comparison.policies if policy.name != FLOAT]
        if _draw(axes, _lines(quantized, rates)):
            axes.axhline(rates[FLOAT][0], color="#8a8f98", linestyle="--", label=FLOAT)
            axes.set(xlabel="stored bits of a weight, scales included")
            axes.set_ylabel("success, % (line: 95 % interval)")
            axes.legend(fontsize=8)
            written += _save(figure, folder, "success")
    return written


def _lines(
    policies: Sequence[ComparedPolicy], values: dict[str, tuple[float, float, float]]
) -> dict[str, list[Point]]:
    """Points of each method, by bits. Policies whose bits or value are not known are left out."""
    lines: dict[str, list[Point]] = {}
    for policy in policies:
        bits = policy.nominal_bits if policy.stored_bits is None else policy.stored_bits
        if bits is not None and policy.name in values:
            lines.setdefault(policy.method, []).append((bits, *values[policy.name]))
    return {method: sorted(points) for method, points in lines.items()}


def _draw(axes: Axes, lines: dict[str, list[Point]]) -> bool:
    """Draws a line a method; returns whether there was any."""
    for index, ((method, points), colour) in enumerate(
        zip(lines.items(), policy_colours(list(lines)), strict=True)
    ):
        bits, values, low, high = zip(*points, strict=True)
        marker = _MARKERS[index % len(_MARKERS)]
        axes.plot(bits, values, marker=marker, markersize=5, color=colour, label=method)
        axes.vlines(bits, low, high, color=colour, alpha=0.5)
    if lines:
        axes.legend(fontsize=8)
    return bool(lines)


@contextmanager
def _figure() -> Iterator[tuple[Figure, Axes]]:
    with matplotlib.rc_context({**STYLE, "pdf.fonttype": 42}):
        figure = Figure(figsize=(4.6, 3.2), layout="constrained")
        yield figure, figure.add_subplot()


def _save(figure: Figure, folder: Path, name: str) -> list[Path]:
    paths = [folder / f"{name}.{form}" for form in FORMATS]
    for path, form in zip(paths, FORMATS, strict=True):
        date = {"Date": None} if form == "svg" else {"CreationDate": None}
        with atomic_file(path) as temporary:
            figure.savefig(temporary, format=form, metadata=date)
    return paths
