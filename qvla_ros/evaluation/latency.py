"""Success as a function of latency: the statistics of a latency sweep."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from qvla_ros.atomic import atomic_file
from qvla_ros.errors import QvlaError
from qvla_ros.evaluation.episodes import EpisodeRecord, parse_episode
from qvla_ros.simulation.real_time import MEASURED
from qvla_ros.statistics import wilson_interval


@dataclass(frozen=True)
class LatencyPoint:
    """Statistics of all episodes of one policy, handover and latency.

    latency_s: given, or the mean over the chunks when it was `measured`. interval: Wilson 95 %,
    fractions. hold_share: fraction of the steps without an action to execute. solved_steps: median
    over the solved episodes, None without any.
    """

    policy: str
    handover: str
    latency_s: float
    measured: bool
    successes: int
    trials: int
    interval: tuple[float, float]
    hold_share: float
    solved_steps: float | None


def latency_points(episodes: Iterable[EpisodeRecord]) -> list[LatencyPoint]:
    """One point a policy, handover and latency, latencies ascending.

    Episodes in lock-step are left out.
    """
    groups: dict[tuple[str, str, float], list[EpisodeRecord]] = {}
    for episode in episodes:
        if episode.conditions is not None:
            key = (episode.policy, episode.conditions.handover, episode.conditions.latency_s)
            groups.setdefault(key, []).append(episode)
    points = [_point(*key, group) for key, group in groups.items()]
    series = list(dict.fromkeys((point.policy, point.handover) for point in points))
    return sorted(
        points, key=lambda point: (series.index((point.policy, point.handover)), point.latency_s)
    )


def _point(
    policy: str, handover: str, latency_s: float, group: Sequence[EpisodeRecord]
) -> LatencyPoint:
    successes = sum(episode.success for episode in group)
    solved = [e.steps for e in group if e.success]
    measured = latency_s == MEASURED
    if measured:
        latency_s = float(
            np.mean([e.latency_s for e in group if e.latency_s is not None] or [np.nan])
        )
    holds = sum(episode.hold_steps or 0 for episode in group)
    steps = sum(episode.steps for episode in group)
    return LatencyPoint(
        policy=policy,
        handover=handover,
        latency_s=latency_s,
        measured=measured,
        successes=successes,
        trials=len(group),
        interval=wilson_interval(successes, len(group)),
        hold_share=holds / steps if steps else 0.0,
        solved_steps=float(np.median(solved)) if solved else None,
    )


def read_episodes(
    path: Path, conditions: Mapping[str, Any], bundle_ids: Mapping[str, str]
) -> list[EpisodeRecord]:
    """Reads the episodes of a bridge's log that ran under `conditions` with these bundles.

    conditions: some of an episode's. bundle_ids: policy -> bundle_id.
    """
    if not path.is_file():
        raise QvlaError(
            str(path), "no file", "finished episodes", "run the sweep first, without --print_only"
        )
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        parse_episode(record)
        for record in records
        if record.get("conditions", {}).items() >= conditions.items()
        and bundle_ids.get(record["policy"]) == record["bundle_id"]
    ]


def write_points(path: Path, points: Sequence[LatencyPoint]) -> None:
    """Writes a CSV file with a header and one line a point; shares and rates are fractions."""
    names = [item.name for item in fields(LatencyPoint) if item.name != "interval"]
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*names, "success_low", "success_high"])
        writer.writeheader()
        for point in points:
            row = asdict(point)
            row["success_low"], row["success_high"] = row.pop("interval")
            writer.writerow(row)


def print_points(points: Sequence[LatencyPoint]) -> None:
    """Prints the points as a table."""
    console = Console(highlight=False)
    table = Table(header_style="bold")
    for header in ("policy", "handover"):
        table.add_column(header)
    for header in (
        "latency ms",
        "success",
        "95 % interval",
        "steps without a plan",
        "steps when solved",
    ):
        table.add_column(header, justify="right")
    for point in points:
        low, high = point.interval
        table.add_row(
            point.policy,
            point.handover,
            f"{1e3 * point.latency_s:.0f}" + (" (measured)" if point.measured else ""),
            f"{point.successes}/{point.trials}",
            f"{100 * low:.0f}–{100 * high:.0f} %",
            f"{100 * point.hold_share:.0f} %",
            "–" if point.solved_steps is None else f"{point.solved_steps:.0f}",
        )
    console.print(table)
