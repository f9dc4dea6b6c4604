"""Plots a training run: errors, success in closed loop and learning rate over updates."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qvla_reference.evaluation import read_results
from qvla_ros.atomic import atomic_file
from qvla_ros.errors import QvlaError
from qvla_ros.evaluation.plots import POLICY_COLOURS, STYLE
from qvla_ros.statistics import wilson_interval

_ALL = "all"  # held-out error of entries that do not separate suites


def plot_run(work_dir: Path) -> Path:
    """Draws <work_dir>/training.png and returns its path.

    It is drawn from curve.jsonl and, if there is one, evaluation.jsonl.
    """
    curve_file = work_dir / "curve.jsonl"
    picture = work_dir / "training.png"
    if not curve_file.exists():
        raise QvlaError(
            "work_dir", work_dir, "the folder of a run, with its curve.jsonl", "train first"
        )
    curve = [json.loads(line) for line in curve_file.read_text(encoding="utf-8").splitlines()]
    with matplotlib.rc_context(STYLE), atomic_file(picture) as temporary:
        training_figure(curve, read_results(work_dir / "evaluation.jsonl")).savefig(
            temporary, format="png", dpi=130
        )
    return picture


def training_figure(
    curve: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]]
) -> Figure:
    """Draws the figure.

    curve: one entry a save, as training writes them; results: one entry a closed-loop episode.
    """
    figure = Figure(figsize=(8.0, 7.0), layout="constrained")
    errors, success, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1))
    held_out = held_out_of_suite(curve)
    suites = sorted(
        {suite for suite in held_out if suite != _ALL} | {entry["suite"] for entry in results}
    )
    colours = {
        suite: POLICY_COLOURS[1 + i % (len(POLICY_COLOURS) - 1)] for i, suite in enumerate(suites)
    }
    _draw_errors(errors, curve, held_out, colours)
    _draw_success(success, success_of_step(results), colours)
    with_rate = [entry for entry in curve if entry.get("learning_rate") is not None]
    steps = [entry["step"] for entry in with_rate]
    rate.plot(steps, [entry["learning_rate"] for entry in with_rate], color=POLICY_COLOURS[0])
    rate.set(ylabel="learning rate", xlabel="update", ylim=(0, None))
    hours = max((entry.get("trained_s", 0.0) for entry in curve), default=0.0) / 3600
    errors.set_title(
        f"{curve[-1]['episodes']} episodes, {hours:.1f} h of recorded training time", loc="left"
    )
    return figure


def held_out_of_suite(curve: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Returns (update, held-out error) by suite."""
    points: dict[str, list[tuple[int, float]]] = {}
    for entry in curve:
        errors = entry.get("held_out_of_suite", {_ALL: entry.get("held_out")})
        for suite, error in errors.items():
            if error is not None:
                points.setdefault(suite, []).append((entry["step"], error))
    return points


def success_of_step(results: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, int, int]]]:
    """Returns (update, successes, episodes) by suite.

    A checkpoint without a known update is left out.
    """
    counts: dict[tuple[str, int], list[bool]] = {}
    for entry in results:
        if entry["checkpoint_step"] is not None:
            counts.setdefault((entry["suite"], entry["checkpoint_step"]), []).append(
                bool(entry["success"])
            )
    points: dict[str, list[tuple[int, int, int]]] = {}
    for (suite, step), successes in sorted(counts.items()):
        points.setdefault(suite, []).append((step, sum(successes), len(successes)))
    return points


def _draw_errors(
    axes: Axes,
    curve: Sequence[Mapping[str, Any]],
    held_out: Mapping[str, Sequence[tuple[int, float]]],
    colours: Mapping[str, str],
) -> None:
    trained = [
        (entry["step"], entry["training"]) for entry in curve if entry.get("training") is not None
    ]
    if trained:
        axes.plot(*zip(*trained, strict=True), color="#b4b8c0", label="training")
    for suite, points in held_out.items():
        name = "held out" if suite == _ALL else f"held out, {suite}"
        axes.plot(
            *zip(*points, strict=True),
            color=colours.get(suite, POLICY_COLOURS[0]),
            marker=".",
            label=name,
        )
    axes.set(ylabel="action error, controller units", ylim=(0, None))
    if axes.get_lines():
        axes.legend(loc="upper right")


def _draw_success(
    axes: Axes, points: Mapping[str, Sequence[tuple[int, int, int]]], colours: Mapping[str, str]
) -> None:
    for suite, counts in points.items():
        steps = [step for step, *_ in counts]
        rates = np.array([hits / total for _, hits, total in counts])
        intervals = np.array([wilson_interval(hits, total) for _, hits, total in counts])
        reach = np.abs(intervals.T - rates) * 100
        axes.errorbar(
            steps,
            rates * 100,
            reach,
            color=colours[suite],
            fmt="o",
            markersize=4,
            capsize=2,
            label=suite,
        )
    axes.set(ylabel="success, %, with 95 % interval", ylim=(0, 102))
    if points:
        axes.legend(loc="lower right")
