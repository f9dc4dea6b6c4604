"""What the episodes of a comparison say about each policy, against the float one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qvla_offline.compare.starts import FLOAT, Start
from qvla_ros.evaluation.episodes import Pairing
from qvla_ros.statistics import wilson_interval

ALL_SUITES = "all"
RESAMPLES = 10_000
_SEED = 0


@dataclass(frozen=True)
class Episode:
    """One finished episode; see qvla_ros.simulation.in_process for what is measured."""

    policy: str
    start: Start
    success: bool
    steps: int
    jerk_m_s3: float | None
    path_length_m: float
    gripper_flips: int


def parse(record: Mapping[str, Any]) -> Episode:
    """Reads a line of the log."""
    return Episode(
        record["policy"],
        Start(record["task_suite_name"], record["task_id"], record["init_state"]),
        record["success"],
        record["steps"],
        record["jerk_m_s3"],
        record["path_length_m"],
        record["gripper_flips"],
    )


@dataclass(frozen=True)
class Motion:
    """Means over episodes that were solved: a failure lasts to the step limit."""

    steps: float
    path_length_m: float
    jerk_m_s3: float
    gripper_flips: float


@dataclass(frozen=True)
class ClosedLoopResult:
    """One policy in one suite, or in ALL_SUITES, over the starts that the float policy has run too.

    interval: Wilson 95 %, of the success rate. kept: successes in terms of the float policy's, with
    the 95 % interval of a bootstrap over starts; None if that one solved nothing. pairing: first is
    the float policy. motion, motion_of_float: of both, over the starts that both solved; None
    without any.
    """

    policy: str
    suite: str
    successes: int
    trials: int
    interval: tuple[float, float]
    kept: float | None
    kept_interval: tuple[float, float] | None
    pairing: Pairing
    motion: Motion | None
    motion_of_float: Motion | None


def closed_loop_results(
    episodes: Iterable[Episode], policies: Sequence[str]
) -> list[ClosedLoopResult]:
    """The results of each policy in all suites together, then in each one; FLOAT is among them."""
    found: dict[str, dict[Start, Episode]] = {policy: {} for policy in policies}
    for episode in episodes:
        found[episode.policy][episode.start] = episode
    suites = list(dict.fromkeys(start.suite for start in found[FLOAT]))
    return [
        _result(policy, suite, _paired(found[FLOAT], found[policy], suite))
        for suite in (ALL_SUITES, *suites)
        for policy in policies
    ]


def _paired(
    of_float: Mapping[Start, Episode], own: Mapping[Start, Episode], suite: str
) -> list[tuple[Episode, Episode]]:
    return [
        (of_float[start], episode)
        for start, episode in own.items()
        if start in of_float and suite in (ALL_SUITES, start.suite)
    ]


def _result(policy: str, suite: str, pairs: Sequence[tuple[Episode, Episode]]) -> ClosedLoopResult:
    first = np.array([reference.success for reference, _ in pairs], bool)
    second = np.array([own.success for _, own in pairs], bool)
    successes = int(second.sum())
    solved = [pair for pair, one, other in zip(pairs, first, second, strict=True) if one and other]
    return ClosedLoopResult(
        policy,
        suite,
        successes,
        len(pairs),
        wilson_interval(successes, len(pairs)),
        successes / int(first.sum()) if first.any() else None,
        kept_interval(first, second),
        _pairing(policy, first, second),
        _motion([own for _, own in solved]),
        _motion([reference for reference, _ in solved]),
    )


def kept_interval(reference: np.ndarray, own: np.ndarray) -> tuple[float, float] | None:
    """The 95 % interval of sum(own) / sum(reference) by a bootstrap over pairs, both bool [N].

    Pairs are drawn with replacement, as many as there are; draws in which the reference solved
    nothing are left out. The same input gives the same interval; None if no draw is left.
    """
    if not reference.any():
        return None
    # Only how often each of the four outcomes comes matters.
    outcomes = [reference & own, reference & ~own, ~reference & own, ~reference & ~own]
    shares = np.mean(outcomes, axis=1)
    drawn = np.random.default_rng(_SEED).multinomial(len(own), shares, size=RESAMPLES)
    of_reference = drawn[:, 0] + drawn[:, 1]
    of_own = drawn[:, 0] + drawn[:, 2]
    some = of_reference > 0
    low, high = np.percentile(of_own[some] / of_reference[some], [2.5, 97.5])
    return float(low), float(high)


def _pairing(policy: str, first: np.ndarray, second: np.ndarray) -> Pairing:
    return Pairing(
        FLOAT,
        policy,
        both=int((first & second).sum()),
        only_first=int((first & ~second).sum()),
        only_second=int((~first & second).sum()),
        neither=int((~first & ~second).sum()),
    )


def _motion(solved: Sequence[Episode]) -> Motion | None:
    if not solved:
        return None
    jerks = [episode.jerk_m_s3 for episode in solved if episode.jerk_m_s3 is not None]
    return Motion(
        float(np.mean([episode.steps for episode in solved])),
        float(np.mean([episode.path_length_m for episode in solved])),
        float(np.mean(jerks or [0.0])),
        float(np.mean([episode.gripper_flips for episode in solved])),
    )
