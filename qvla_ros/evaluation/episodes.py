"""Records of episodes and their statistics (docs/architecture.md, "What the bridge prints")."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from qvla_ros.errors import QvlaError
from qvla_ros.simulation.real_time import Conditions
from qvla_ros.statistics import percentiles, wilson_interval


@dataclass(frozen=True)
class EpisodeRecord:
    """The record of one attempt of one policy at one task from one initial state.

    inference_ms and stamp_to_command_ms hold one number a chunk that carried it; jerk_m_s3 is the
    root mean square over the episode. conditions, hold_steps (without a plan) and latency_s (mean
    over chunks): in real time only.
    """

    policy: str
    task_id: int
    instruction: str
    init_state: int
    success: bool
    steps: int
    duration_s: float
    inference_ms: tuple[float, ...]
    stamp_to_command_ms: tuple[float, ...]
    jerk_m_s3: float | None
    video: str | None
    conditions: Conditions | None = None
    hold_steps: int | None = None
    latency_s: float | None = None

    @property
    def start(self) -> tuple[int, int]:
        """Task and initial state; episodes of two policies are a pair when these agree."""
        return self.task_id, self.init_state


def parse_episode(event: Mapping[str, Any]) -> EpisodeRecord:
    """Reads the bridge's "episode" line; QvlaError names what the line lacks."""
    try:
        return EpisodeRecord(
            policy=str(event["policy"]),
            task_id=int(event["task_id"]),
            instruction=str(event["instruction"]),
            init_state=int(event["init_state"]),
            success=bool(event["success"]),
            steps=int(event["steps"]),
            duration_s=float(event["duration_s"]),
            inference_ms=_numbers(event["inference_ms"]),
            stamp_to_command_ms=_numbers(event["stamp_to_command_ms"]),
            jerk_m_s3=None if event.get("jerk_m_s3") is None else float(event["jerk_m_s3"]),
            video=event.get("video"),
            **_in_real_time(event),
        )
    except (KeyError, TypeError, ValueError) as error:
        fix = "run the bridge and the evaluation from one release"
        raise QvlaError(
            "bridge episode line", repr(error), "the keys in docs/architecture.md", fix
        ) from error


def _in_real_time(event: Mapping[str, Any]) -> dict[str, Any]:
    if event.get("conditions") is None:
        return {}
    names = [item.name for item in fields(Conditions)]
    return {
        "conditions": Conditions(**{name: event["conditions"][name] for name in names}),
        "hold_steps": int(event["real_time"]["hold_steps"]),
        "latency_s": event["real_time"]["latency_s"],
    }


def _numbers(values: Iterable[Any]) -> tuple[float, ...]:
    """The measured values; the bridge writes null for a chunk that did not carry one."""
    return tuple(float(value) for value in values if value is not None)


@dataclass(frozen=True)
class Summary:
    """Statistics of one policy over all its episodes.

    interval: Wilson 95 %, fractions. inference_ms, stamp_to_command_ms: (p50, p99) over chunks.
    jerk_m_s3: mean over episodes, NaN if none. by_task: task -> (successes, trials).
    """

    policy: str
    successes: int
    trials: int
    interval: tuple[float, float]
    inference_ms: tuple[float, float]
    stamp_to_command_ms: tuple[float, float]
    jerk_m_s3: float
    by_task: dict[int, tuple[int, int]]


def summarize(episodes: Iterable[EpisodeRecord], policy: str) -> Summary:
    """Counts the successes and summarizes the latencies of `policy`."""
    own = [episode for episode in episodes if episode.policy == policy]
    successes = sum(episode.success for episode in own)
    jerks = [episode.jerk_m_s3 for episode in own if episode.jerk_m_s3 is not None]
    by_task = {}
    for task in sorted({episode.task_id for episode in own}):
        outcomes = [episode.success for episode in own if episode.task_id == task]
        by_task[task] = (sum(outcomes), len(outcomes))
    inference = percentiles([ms for episode in own for ms in episode.inference_ms])
    command = percentiles([ms for episode in own for ms in episode.stamp_to_command_ms])
    return Summary(
        policy=policy,
        successes=successes,
        trials=len(own),
        interval=wilson_interval(successes, len(own)),
        inference_ms=(inference[0], inference[1]),
        stamp_to_command_ms=(command[0], command[1]),
        jerk_m_s3=float(np.mean(jerks)) if jerks else math.nan,
        by_task=by_task,
    )


@dataclass(frozen=True)
class Pairing:
    """Outcomes of two policies over the starts that both have run."""

    first: str
    second: str
    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def pairs(self) -> int:
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def p_value(self) -> float:
        """Exact McNemar test: how probable so uneven a split is if both are equally good."""
        discordant = self.only_first + self.only_second
        fewer = min(self.only_first, self.only_second)
        tail = sum(math.comb(discordant, k) for k in range(fewer + 1)) / 2**discordant
        return min(1.0, 2 * tail)


def pair(episodes: Sequence[EpisodeRecord], first: str, second: str) -> Pairing:
    """Compares two policies over the starts that both have run."""
    solved = {
        name: {e.start: e.success for e in episodes if e.policy == name} for name in (first, second)
    }
    outcomes = [
        (solved[first][start], solved[second][start])
        for start in solved[first]
        if start in solved[second]
    ]
    return Pairing(
        first,
        second,
        both=outcomes.count((True, True)),
        only_first=outcomes.count((True, False)),
        only_second=outcomes.count((False, True)),
        neither=outcomes.count((False, False)),
    )
