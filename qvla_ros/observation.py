"""Puts an observation together from the streams of samples that arrive one by one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qvla_ros.actions import quaternion_to_axis_angle
from qvla_ros.errors import QvlaError

MAX_LEAD_S = 0.05  # a stamp that lies further in the future comes of a clock that is wrong
POSE_NAMES = ("eef_x", "eef_y", "eef_z", "eef_axis_angle_x", "eef_axis_angle_y", "eef_axis_angle_z")


@dataclass(frozen=True)
class Observation:
    """One moment. Stamps are nanoseconds of the clock that stamped the messages.

    images: camera name -> uint8 [H, W, 3], RGB, as published; proprioception: float64 [P], raw SI
    units, in the order of the bundle's names; stamp_ns: capture time of the newest image;
    stamps_ns: of every stream.
    """

    images: Mapping[str, NDArray[np.uint8]]
    proprioception: NDArray[np.float64]
    instruction: str
    stamp_ns: int
    stamps_ns: Mapping[str, int]


@dataclass(frozen=True)
class Waiting:
    """The reason why there is no observation to act on.

    One sentence that names the stream, what was found and what was expected.
    """

    reason: str


@dataclass(frozen=True)
class Samples:
    """One sample per stream, close together in time."""

    values: Mapping[str, Any]
    stamps_ns: Mapping[str, int]


class Synchronizer:
    """Holds the last moments of each stream.

    Hands out one sample of each when they are fresh and belong together.

    The stream that lags most sets the moment, with its newest sample; every other stream gives the
    sample nearest to it, which for a late camera and fast joint states is not the newest. It never
    fills in for a stream that is missing or stale, and never hands out a sample twice. A clock that
    jumps back (a simulation was reset) empties it. Not thread-safe: one thread puts and collects.

    max_lead_s: how far in the future a stamp may lie; None: as far as max_age_s in the past.
    """

    def __init__(
        self,
        streams: Iterable[str],
        max_spread_s: float,
        max_age_s: float,
        max_lead_s: float | None = None,
    ) -> None:
        self._max_lead_s = max_age_s if max_lead_s is None else max_lead_s
        self._max_spread_s = max_spread_s
        self._max_age_s = max_age_s
        self._max_age_ns = round(max_age_s * 1e9)
        # (stamp, value), stamps strictly increasing, at most max_age_s from first to last.
        self._histories: dict[str, deque[tuple[int, Any]]] = {stream: deque() for stream in streams}
        self._last_now_ns = -1
        self._last_stamps_ns: dict[str, int] = {}

    def put(self, stream: str, stamp_ns: int, value: Any) -> None:
        """Adds the stream's newest sample.

        Those with the same or a later stamp are forgotten, the last word counts.
        """
        history = self._histories[stream]
        while history and history[-1][0] >= stamp_ns:
            history.pop()
        history.append((stamp_ns, value))
        _forget(history, stamp_ns - self._max_age_ns)

    def discard(self, stream: str) -> None:
        """Forgets the stream's samples: what came last cannot be used."""
        self._histories[stream].clear()

    def collect(self, now_ns: int) -> Samples | Waiting | None:
        """Returns the samples once a new set is complete.

        None when the latest set was handed out and is still fresh; else Waiting.

        A set is new when every stream has moved on since the set before: no sample is handed out
        twice.
        """
        if now_ns < self._last_now_ns:
            for history in self._histories.values():
                history.clear()
            self._last_stamps_ns = {}
        self._last_now_ns = now_ns
        missing = [stream for stream, history in self._histories.items() if not history]
        if missing:
            return Waiting("nothing received yet on " + ", ".join(missing))
        latest = {stream: history[-1][0] for stream, history in self._histories.items()}
        behind = min(latest, key=latest.__getitem__)
        ahead = max(latest, key=latest.__getitem__)
        age_s = (now_ns - latest[behind]) * 1e-9
        lead_s = (latest[ahead] - now_ns) * 1e-9
        if now_ns - latest[behind] > self._max_age_ns:
            return Waiting(
                f"{behind} is stale: stamped {age_s:.3f} s ago, at most "
                f"{self._max_age_s:g} s is allowed"
            )
        if lead_s > self._max_lead_s:
            return Waiting(
                f"{ahead} is stamped {lead_s:.3f} s in the future: synchronise the clocks of both "
                "machines (chrony), check use_sim_time"
            )
        for history in self._histories.values():
            _forget(history, now_ns - self._max_age_ns)
        return self._nearest_to(latest[behind])

    def _nearest_to(self, moment_ns: int) -> Samples | Waiting | None:
        nearest = {
            stream: _nearest(history, moment_ns) for stream, history in self._histories.items()
        }
        stamps = {stream: stamp for stream, (stamp, _) in nearest.items()}
        oldest = min(stamps, key=stamps.__getitem__)
        newest = max(stamps, key=stamps.__getitem__)
        spread_s = (stamps[newest] - stamps[oldest]) * 1e-9
        if spread_s > self._max_spread_s:
            return Waiting(
                f"{oldest} lags {newest} by {spread_s:.3f} s, at most "
                f"{self._max_spread_s:g} s apart is allowed"
            )
        if any(stamps[stream] <= last_ns for stream, last_ns in self._last_stamps_ns.items()):
            return None
        self._last_stamps_ns = stamps
        for (
            stream,
            history,
        ) in self._histories.items():  # later moments have later samples nearest to them
            _forget(history, stamps[stream])
        return Samples({stream: value for stream, (_, value) in nearest.items()}, stamps)


def _forget(history: deque[tuple[int, Any]], before_ns: int) -> None:
    """Drops what was stamped before, but never the newest: it tells how late its stream is."""
    while len(history) > 1 and history[0][0] < before_ns:
        history.popleft()


def _nearest(history: deque[tuple[int, Any]], moment_ns: int) -> tuple[int, Any]:
    return min(history, key=lambda sample: abs(sample[0] - moment_ns))


def joint_names(proprioception_names: Sequence[str]) -> tuple[str, ...]:
    """Those names that are read from JointState; the others are the end effector's pose."""
    return tuple(name for name in proprioception_names if name not in POSE_NAMES)


def proprioception_vector(
    names: Sequence[str],
    joint_positions: Mapping[str, float],
    eef_position_m: ArrayLike | None,
    eef_quaternion_xyzw: ArrayLike | None,
) -> NDArray[np.float64]:
    """The named numbers in order, float64 [P], SI units.

    QvlaError names the joints that JointState lacks.
    """
    lacking = [name for name in joint_names(names) if name not in joint_positions]
    if lacking:
        fix = "publish them in joint_states under these names, or remap to the topic that has them"
        raise QvlaError("joint_states", f"names {sorted(joint_positions)}", f"also {lacking}", fix)
    known = dict(joint_positions)
    if eef_position_m is not None and eef_quaternion_xyzw is not None:
        pose = [
            *np.asarray(eef_position_m, np.float64),
            *quaternion_to_axis_angle(eef_quaternion_xyzw),
        ]
        known.update(zip(POSE_NAMES, pose, strict=True))
    return np.array([known[name] for name in names], np.float64)
