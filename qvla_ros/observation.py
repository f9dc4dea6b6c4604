"""What a policy sees at one moment, and how it comes together from streams that arrive one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qvla_ros.actions import quaternion_to_axis_angle
from qvla_ros.errors import QvlaError

POSE_NAMES = ("eef_x", "eef_y", "eef_z", "eef_axis_angle_x", "eef_axis_angle_y", "eef_axis_angle_z")


@dataclass(frozen=True)
class Observation:
    """One moment. Stamps are nanoseconds of the clock that stamped the messages.

    images: camera name -> uint8 [H, W, 3], RGB, as published; proprioception: float64 [P], raw SI units, in the order
    of the bundle's names; stamp_ns: capture time of the newest image; stamps_ns: of every stream.
    """

    images: Mapping[str, NDArray[np.uint8]]
    proprioception: NDArray[np.float64]
    instruction: str
    stamp_ns: int
    stamps_ns: Mapping[str, int]


@dataclass(frozen=True)
class Waiting:
    """Why there is nothing to act on: one sentence that names the stream, what was found and what was expected."""

    reason: str


@dataclass(frozen=True)
class Samples:
    """One sample per stream, close together in time."""

    values: Mapping[str, Any]
    stamps_ns: Mapping[str, int]


class Synchronizer:
    """Holds the latest sample of each stream; hands them out together when they are fresh and belong together.

    It never fills in for a stream that is missing or stale, and never hands out an older set twice. A clock that jumps
    back (a simulation was reset) empties it. Not thread-safe: one thread puts and collects.
    """

    def __init__(self, streams: Iterable[str], max_spread_s: float, max_age_s: float) -> None:
        self._streams = tuple(streams)
        self._max_spread_s, self._max_age_s = max_spread_s, max_age_s
        self._samples: dict[str, tuple[int, Any]] = {}
        self._last_now_ns = self._last_oldest_ns = -1

    def put(self, stream: str, stamp_ns: int, value: Any) -> None:
        """Replace the stream's sample."""
        if stream not in self._streams:
            raise KeyError(stream)
        self._samples[stream] = (stamp_ns, value)

    def discard(self, stream: str) -> None:
        """Forget the stream's sample: what came last cannot be used."""
        self._samples.pop(stream, None)

    def collect(self, now_ns: int) -> Samples | Waiting | None:
        """Samples when a new set is complete; None when the latest set was handed out and is still fresh; else Waiting.

        A set is new when its oldest stamp is later than that of the set before: every stream has moved on.
        """
        if now_ns < self._last_now_ns:
            self._samples.clear()
            self._last_oldest_ns = -1
        self._last_now_ns = now_ns
        missing = [stream for stream in self._streams if stream not in self._samples]
        if missing:
            return Waiting("nothing received yet on " + ", ".join(missing))
        stamps = {stream: self._samples[stream][0] for stream in self._streams}
        oldest, newest = min(stamps, key=stamps.__getitem__), max(stamps, key=stamps.__getitem__)
        age_s, lead_s = (now_ns - stamps[oldest]) * 1e-9, (stamps[newest] - now_ns) * 1e-9
        if age_s > self._max_age_s:
            return Waiting(f"{oldest} is stale: stamped {age_s:.3f} s ago, at most {self._max_age_s:g} s is allowed")
        if lead_s > self._max_age_s:
            return Waiting(
                f"{newest} is stamped {lead_s:.3f} s in the future: synchronise the clocks, check use_sim_time"
            )
        spread_s = (stamps[newest] - stamps[oldest]) * 1e-9
        if spread_s > self._max_spread_s:
            return Waiting(
                f"{oldest} lags {newest} by {spread_s:.3f} s, at most {self._max_spread_s:g} s apart is allowed"
            )
        if stamps[oldest] <= self._last_oldest_ns:
            return None
        self._last_oldest_ns = stamps[oldest]
        return Samples({stream: self._samples[stream][1] for stream in self._streams}, stamps)


def joint_names(proprioception_names: Sequence[str]) -> tuple[str, ...]:
    """Those names that are read from JointState; the others are the end effector's pose."""
    return tuple(name for name in proprioception_names if name not in POSE_NAMES)


def proprioception_vector(
    names: Sequence[str],
    joint_positions: Mapping[str, float],
    eef_position_m: ArrayLike | None,
    eef_quaternion_xyzw: ArrayLike | None,
) -> NDArray[np.float64]:
    """The named numbers in order, float64 [P], SI units. QvlaError names the joints that JointState lacks."""
    lacking = [name for name in joint_names(names) if name not in joint_positions]
    if lacking:
        fix = "publish them in joint_states under these names, or remap to the topic that has them"
        raise QvlaError("joint_states", f"names {sorted(joint_positions)}", f"also {lacking}", fix)
    known = dict(joint_positions)
    if eef_position_m is not None and eef_quaternion_xyzw is not None:
        pose = [*np.asarray(eef_position_m, np.float64), *quaternion_to_axis_angle(eef_quaternion_xyzw)]
        known.update(zip(POSE_NAMES, pose, strict=True))
    return np.array([known[name] for name in names], np.float64)
