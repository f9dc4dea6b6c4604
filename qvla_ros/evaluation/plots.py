"""Draws the report's figures, each an SVG element as text.

A colour stands for the same bit-width or policy in all figures.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qvla_ros.evaluation.analysis import Analysis
from qvla_ros.evaluation.episodes import EpisodeRecord, summarize
from qvla_ros.evaluation.latency import LatencyPoint
from qvla_ros.statistics import wilson_interval

# From "nothing stored" to "as it was": light grey, then darker with every bit-width.
BIT_COLOURS = {0: "#d7d9dd", 2: "#f2b366", 4: "#4fb3a5", 8: "#2f7fb5", 16: "#29335c"}
POLICY_COLOURS = ("#29335c", "#e4572e", "#4fb3a5", "#8a5fbf", "#f2b366")
STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8f98",
    "axes.labelcolor": "#3c4250",
    "xtick.color": "#3c4250",
    "ytick.color": "#3c4250",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e6e8ec",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: small, searchable
    "svg.hashsalt": "qvla",  # the same data give the same file
}


def policy_colours(policies: Sequence[object]) -> list[str]:
    """One colour a policy, in their order."""
    return [POLICY_COLOURS[index % len(POLICY_COLOURS)] for index in range(len(policies))]


def bits_per_layer(gates: Mapping[str, Sequence[int]]) -> str:
    """Share of output channels at each bit-width: a stacked bar a layer, in the model's order."""
    with _figure(9.4, 3.0) as (figure, axes):
        names = list(gates)
        used = sorted({bits for row in gates.values() for bits in row})
        bottom = np.zeros(len(names))
        for bits in reversed(used):
            share = np.array([np.mean(np.asarray(gates[name]) == bits) for name in names]) * 100
            colour = BIT_COLOURS.get(bits, "#999999")
            axes.bar(
                np.arange(len(names)),
                share,
                bottom=bottom,
                width=1.0,
                color=colour,
                label=f"{bits} bit",
            )
            bottom += share
        axes.set(ylabel="output channels, %", ylim=(0, 100), xlim=(-0.5, len(names) - 0.5))
        axes.grid(False)
        _mark_parts(axes, names)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), reverse=True)
        return _svg(figure)


def sensitivity_per_layer(analysis: Analysis) -> str:
    """Summed sensitivity of each layer if all of it had one bit-width; logarithmic."""
    with _figure(9.4, 3.0) as (figure, axes):
        for bits, totals in analysis.sensitivity.items():
            values = np.where(np.asarray(totals) > 0, totals, np.nan)
            axes.plot(
                values,
                marker="o",
                markersize=2.5,
                linewidth=0.8,
                color=BIT_COLOURS[bits],
                label=f"{bits} bit",
            )
        axes.set(
            yscale="log",
            ylabel=f"sensitivity, {analysis.unit}",
            xlim=(-0.5, len(analysis.layers) - 0.5),
        )
        _mark_parts(axes, analysis.layers)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return _svg(figure)


def error_versus_bits(analysis: Analysis) -> str:
    """Error of the actions against bits per weight: measured ones with intervals, and predictions.

    Predicted are the best gates at every budget and uniform bit-widths; they are drawn thin.
    """
    with _figure(4.6, 3.0) as (figure, axes):
        axes.plot(
            *zip(*analysis.best, strict=True),
            color="#8a8f98",
            linewidth=1.0,
            linestyle=":",
            label="predicted: best gates at a budget",
        )
        for bits, (weight_bits, error) in analysis.uniform.items():
            label = f"predicted: {bits} bit everywhere"
            axes.plot(weight_bits, error, "|", color=BIT_COLOURS[bits], label=label)
        if not analysis.measured:
            axes.plot(*analysis.chosen, "x", color="#8a8f98", label="predicted: these gates")
        colours = policy_colours(analysis.measured)[::-1]
        for one, colour in zip(analysis.measured, colours, strict=True):
            axes.errorbar(
                one.bits_per_weight,
                one.error,
                yerr=[[one.error - one.low], [one.high - one.error]],
                fmt="o",
                markersize=6,
                capsize=3,
                color=colour,
                label=f"measured: {one.name}",
            )
        axes.set(
            yscale="log",
            xlabel=f"bits per weight ({analysis.cost}), scales included",
            ylabel=f"error, {analysis.unit}",
        )
        axes.legend(fontsize=7)
        return _svg(figure)


def latency_histogram(episodes: Sequence[EpisodeRecord], policies: Sequence[str]) -> str:
    """Inference time of every chunk; dashed: the median."""
    with _figure(4.6, 3.0) as (figure, axes):
        times = {
            name: [ms for e in episodes if e.policy == name for ms in e.inference_ms]
            for name in policies
        }
        everything = np.concatenate([np.asarray(values, float) for values in times.values()])
        if everything.size:
            edges = np.linspace(0.95 * everything.min(), 1.02 * np.percentile(everything, 99), 41)
            for colour, (name, values) in zip(policy_colours(policies), times.items(), strict=True):
                axes.hist(
                    np.clip(values, None, edges[-1]), edges, color=colour, alpha=0.6, label=name
                )
                if values:
                    axes.axvline(
                        float(np.median(values)), color=colour, linestyle="--", linewidth=1
                    )
        axes.set(xlabel="inference, ms (last bin: everything above)", ylabel="chunks")
        axes.legend()
        return _svg(figure)


def success_by_task(
    episodes: Sequence[EpisodeRecord], policies: Sequence[str], instructions: Mapping[int, str]
) -> str:
    """Success of each policy a task, with Wilson 95 % intervals."""
    height = 0.9 + 0.32 * len(instructions) * len(policies)
    with _figure(9.4, height) as (figure, axes):
        tasks = list(instructions)
        for index, (name, colour) in enumerate(
            zip(policies, policy_colours(policies), strict=True)
        ):
            counts = summarize(episodes, name).by_task
            place = np.arange(len(tasks)) + (index - (len(policies) - 1) / 2) * 0.8 / len(policies)
            for row, task in zip(place, tasks, strict=True):
                successes, trials = counts.get(task, (0, 0))
                rate = 100 * successes / trials if trials else 0.0
                low, high = (100 * bound for bound in wilson_interval(successes, trials))
                axes.barh(
                    row,
                    rate,
                    height=0.7 / len(policies),
                    color=colour,
                    label=name if task == tasks[0] else None,
                )
                axes.plot(
                    [low, high], [row, row], color="#8a8f98", linewidth=1.6, solid_capstyle="butt"
                )
                axes.annotate(
                    f"{successes}/{trials}",
                    (101, row),
                    va="center",
                    fontsize=8,
                    annotation_clip=False,
                )
        axes.set_yticks(np.arange(len(tasks)), [_wrapped(instructions[task]) for task in tasks])
        axes.set(xlabel="success, % (line: 95 % interval)", xlim=(0, 100))
        axes.grid(visible=True, axis="x")
        axes.invert_yaxis()
        axes.legend(loc="upper left", bbox_to_anchor=(1.06, 1.0))
        return _svg(figure)


def success_versus_latency(points: Sequence[LatencyPoint], chunk_s: float) -> Figure:
    """Success against latency with Wilson 95 % intervals, one line a policy and handover.

    The dashed line is the length of a chunk.
    """
    with _figure(6.4, 3.6) as (figure, axes):
        series = list(dict.fromkeys((point.policy, point.handover) for point in points))
        width_ms = 1e3 * max((point.latency_s for point in points), default=0.0)
        several = len({policy for policy, _ in series}) > 1
        for index, ((policy, handover), colour) in enumerate(
            zip(series, policy_colours(series), strict=True)
        ):
            own = [
                point for point in points if (point.policy, point.handover) == (policy, handover)
            ]
            # Intervals side by side, where they would hide each other.
            at_ms = [
                1e3 * point.latency_s + 0.008 * width_ms * (index - (len(series) - 1) / 2)
                for point in own
            ]
            rates = [100 * point.successes / point.trials for point in own]
            label = f"{policy}: {handover}" if several else handover
            axes.vlines(
                at_ms,
                *(np.array([point.interval for point in own]).T * 100),
                color=colour,
                alpha=0.45,
            )
            axes.plot(at_ms, rates, marker="o", markersize=4, color=colour, label=label)
        axes.axvline(
            1e3 * chunk_s, color="#8a8f98", linestyle="--", linewidth=1, label="length of a chunk"
        )
        axes.set(
            xlabel="latency, ms of simulated time",
            ylabel="success, % (line: 95 % interval)",
            ylim=(-3, 103),
        )
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return figure


def _mark_parts(axes: Axes, names: Sequence[str]) -> None:
    """Labels the parts of the model below their layers, and draws a line between them."""
    parts = [_part(name) for name in names]
    starts = [i for i, part in enumerate(parts) if i == 0 or part != parts[i - 1]]
    for start, end in zip(starts, [*starts[1:], len(parts)], strict=True):
        if start:
            axes.axvline(start - 0.5, color="#3c4250", linewidth=0.8)
        axes.annotate(
            parts[start],
            ((start + end - 1) / 2, 1.02),
            xycoords=("data", "axes fraction"),
            ha="center",
            fontsize=8,
            color="#3c4250",
        )
    axes.set_xlabel("layer, in the order of the model")


def _part(name: str) -> str:
    known = {
        "vision_backbone.featurizer": "vision",
        "vision_backbone.fused_featurizer": "vision, fused",
        "vision_backbone": "vision",
        "language_model": "language model",
        "projector": "projector",
    }
    return next(
        (label for prefix, label in known.items() if name.startswith(prefix)),
        name.partition(".")[0],
    )


def _wrapped(text: str, width: int = 30) -> str:
    return re.sub(rf"(.{{1,{width}}})(?:\s+|$)", r"\1\n", text).rstrip()


@contextmanager
def _figure(width_in: float, height_in: float) -> Iterator[tuple[Figure, Axes]]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        yield figure, figure.add_subplot()


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
