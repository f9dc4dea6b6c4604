"""Which action is in force when: chunks laid on the clock, each taking over from the one before."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qvla_ros.control import rotation
from qvla_ros.control.setpoint import MotionSpec

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PlannedChunk:
    """A chunk that a policy plans: actions float64 [K, A], un-normalised.

    Action i is meant for the time [stamp + i dt, stamp + (i + 1) dt).

    stamp_ns: ROS time of the newest image it was computed from. step_dt_s: the bundle's control
    period.
    """

    stamp_ns: int
    step_dt_s: float
    actions: Array

    def step_begin_ns(self, index: int) -> int:
        """When action `index` begins, ROS time."""
        return self.stamp_ns + round(index * self.step_dt_s * 1e9)


class Step(NamedTuple):
    """One action [A] and the time that it was planned for; the next step may cut it short."""

    begin_ns: int
    end_ns: int
    action: Array


class ChunkTimeline:
    """The steps to come. Not thread-safe.

    blend_steps: over how many steps a new chunk takes over from the old one; 0 switches at once.
    The new one's weight grows linearly: 1/(n+1), 2/(n+1) ... Translations, joints and the rotation
    vectors of deltas are blended linearly (for a delta of 0.1 rad that differs from slerp by less
    than 1e-4 rad), rotations of absolute poses by slerp. The gripper is never blended: half open is
    no compromise between open and closed; it follows the new chunk at once.
    """

    def __init__(self, blend_steps: int, spec: MotionSpec) -> None:
        self._blend_steps = blend_steps
        self._spec = spec
        self._steps: list[Step] = []
        self._oldest_ns: int | None = None  # chunks stamped earlier are refused

    def add(self, chunk: PlannedChunk, now_ns: int) -> int | None:
        """Lays a chunk on the clock.

        How many of its first steps were skipped because their time has begun or passed.

        It enters at its first step that begins at `now_ns` or later, ceil(latency / dt) steps on,
        and the old chunk goes on until then. All steps skipped: nothing changes. None: refused,
        because it was made from an image that is not newer than the one of the chunk in force. A
        chunk of one action says only what to do next: it enters at once, whenever it comes, and is
        not blended.
        """
        if self._oldest_ns is not None and chunk.stamp_ns < self._oldest_ns:
            return None
        count = len(chunk.actions)
        oldest_ns = chunk.stamp_ns + 1
        if count == 1:
            chunk = replace(chunk, stamp_ns=max(now_ns, chunk.stamp_ns))
        first = next(
            (index for index in range(count) if chunk.step_begin_ns(index) >= now_ns), count
        )
        if first == count:
            return count
        self._oldest_ns = oldest_ns
        new = [
            Step(
                chunk.step_begin_ns(index),
                chunk.step_begin_ns(index + 1),
                self._blended(chunk, index, index - first),
            )
            for index in range(first, count)
        ]
        entry_ns = new[0].begin_ns
        self._steps = [
            step for step in self._steps if step.begin_ns < entry_ns and step.end_ns > now_ns
        ] + new
        return first

    def _blended(self, chunk: PlannedChunk, index: int, since_entry: int) -> Array:
        new = np.asarray(chunk.actions[index], np.float64)
        takes_over = len(chunk.actions) > 1 and since_entry < self._blend_steps
        old = self.at(chunk.step_begin_ns(index)) if takes_over else None
        if old is None:
            return new
        weight = (since_entry + 1) / (self._blend_steps + 1)
        blended = (1.0 - weight) * old + weight * new
        gripper = self._spec.gripper_index
        if self._spec.is_pose and not self._spec.is_delta:
            columns = [column for column in range(len(new)) if column != gripper][3:]
            scale = self._spec.angular_scale
            start, end = (
                rotation.from_rotation_vector(scale * action[columns]) for action in (old, new)
            )
            blended[columns] = (
                rotation.to_rotation_vector(rotation.slerp(start, end, weight)) / scale
            )
        if gripper is not None:
            blended[gripper] = new[gripper]
        return blended

    def _index(self, now_ns: int) -> int:
        """Index of the last step that has begun; -1 if none has."""
        return bisect.bisect_right(self._steps, now_ns, key=lambda step: step.begin_ns) - 1

    def at(self, now_ns: int) -> Array | None:
        """The action [A] in force; None before the first step and after the last."""
        index = self._index(now_ns)
        return (
            self._steps[index].action if index >= 0 and now_ns < self._steps[index].end_ns else None
        )

    def between(self, begin_ns: int, end_ns: int) -> Iterator[tuple[Step, int, int]]:
        """The steps in force in [begin, end) in turn, each with the begin and end of its share of
        that time.
        """
        for index in range(max(self._index(begin_ns), 0), len(self._steps)):
            step = self._steps[index]
            if step.begin_ns >= end_ns:
                return
            cut_ns = (
                self._steps[index + 1].begin_ns if index + 1 < len(self._steps) else step.end_ns
            )
            start_ns = max(begin_ns, step.begin_ns)
            stop_ns = min(end_ns, step.end_ns, cut_ns)
            if start_ns < stop_ns:
                yield step, start_ns, stop_ns

    def end_ns(self) -> int | None:
        """When the last step ends; None without any."""
        return self._steps[-1].end_ns if self._steps else None

    def remaining_s(self, now_ns: int) -> float:
        """How long the plan goes on."""
        return max(0.0, (self._steps[-1].end_ns - now_ns) * 1e-9) if self._steps else 0.0

    def upcoming(self, now_ns: int) -> Array:
        """The actions in force and to come, [m, A] ([0, 0] without any): for displays."""
        left = [
            step.action
            for step in self._steps[max(self._index(now_ns), 0) :]
            if step.end_ns > now_ns
        ]
        return np.array(left) if left else np.zeros((0, 0))

    def flush(self, oldest_ns: int | None = None) -> None:
        """Forgets all steps. Chunks stamped before `oldest_ns` are refused from now on (None: any
        chunk is taken).
        """
        self._steps = []
        self._oldest_ns = oldest_ns
