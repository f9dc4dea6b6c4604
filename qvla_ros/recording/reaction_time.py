"""Estimates from a bag how late an arm carries out the velocities that it is sent.

Both are taken at the time of their arrival at the recorder: the lateness is then what a node there
has to wait for, from a command to when a measured pose shows it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qvla_ros.control.sent_velocities import HELD_S
from qvla_ros.errors import QvlaError
from qvla_ros.messages.kinds import POSE
from qvla_ros.recording.bag import Bag

Array = NDArray[np.float64]
TWIST = "geometry_msgs/msg/TwistStamped"
WINDOW_S = 0.5  # over which displacements are compared: noise of the poses counts little
LONGEST_S = 1.0
RESOLUTION_S = 0.005
LEAST_WINDOWS = 100
LEAST_MOTION_M = 0.005  # root mean square of the displacements in a window


@dataclass(frozen=True)
class Velocities:
    """times_s [N], rising; velocities [N, 3] in force from then on, m/s."""

    times_s: Array
    velocities: Array


@dataclass(frozen=True)
class Positions:
    """times_s [N], rising; positions [N, 3], m."""

    times_s: Array
    positions: Array


@dataclass(frozen=True)
class Reaction:
    """reaction_time_s: the lateness at which measured displacements are most like those sent.
    gain: measured over sent, 1 for an arm that makes the way it is told. unexplained: the share of
    the measured motion's square that is not the sent one's: 0 to 1.
    """

    reaction_time_s: float
    gain: float
    unexplained: float


def estimate_reaction(sent: Velocities, measured: Positions) -> Reaction:
    """Compares displacements over WINDOW_S at every lateness up to LONGEST_S.

    QvlaError where there is too little of either, or too little motion.
    """
    begin_s = max(sent.times_s[0], measured.times_s[0]) + WINDOW_S + LONGEST_S
    end_s = min(sent.times_s[-1], measured.times_s[-1])
    ends_s = measured.times_s[(measured.times_s >= begin_s) & (measured.times_s <= end_s)]
    if len(ends_s) < LEAST_WINDOWS:
        found = f"{len(ends_s)} poses while commands came"
        expected = f"{LEAST_WINDOWS}, from {WINDOW_S + LONGEST_S:g} s after the first command on"
        raise QvlaError("bag", found, expected, "record a longer motion")
    moved = _at(measured, ends_s) - _at(measured, ends_s - WINDOW_S)
    latenesses_s = np.arange(0.0, LONGEST_S, RESOLUTION_S)
    told = [_sent(sent, ends_s - late_s) for late_s in latenesses_s]
    motion_m = np.sqrt((told[0] ** 2).sum(axis=1).mean())
    if motion_m < LEAST_MOTION_M:
        found = f"commands of {1e3 * motion_m:.2g} mm in {WINDOW_S:g} s"
        expected = f"motion of {1e3 * LEAST_MOTION_M:g} mm and more in {WINDOW_S:g} s"
        raise QvlaError("bag", found, expected, "record while the arm moves to and fro")
    likeness = np.array([_likeness(each, moved) for each in told])
    best = int(np.argmax(likeness))
    gain = float((told[best] * moved).sum() / (told[best] ** 2).sum())
    return Reaction(float(latenesses_s[best]), gain, float(1.0 - likeness[best] ** 2))


def read_motion(
    bag: Bag, command_topic: str | None, pose_topic: str | None
) -> tuple[Velocities, Positions]:
    """The velocities sent and the positions measured; the only topics of their types by default."""
    commands = _topic(bag, command_topic, TWIST, "--command_topic")
    poses = _topic(bag, pose_topic, POSE, "--pose_topic")
    rows: dict[str, list[tuple[float, ...]]] = {commands: [], poses: []}
    for message in bag.messages((commands, poses), "commands and poses"):
        content = bag.decode(message)
        is_command = message.topic == commands
        vector = content.twist.linear if is_command else content.pose.position
        rows[message.topic].append((1e-9 * message.received_ns, vector.x, vector.y, vector.z))
    sent, measured = (np.array(rows[topic], float).reshape(-1, 4) for topic in (commands, poses))
    for topic, found in ((commands, sent), (poses, measured)):
        if len(found) < 2 or not np.isfinite(found).all():
            expected = "two messages at least, of finite numbers"
            raise QvlaError(topic, f"{len(found)} messages", expected, "record it again")
    return Velocities(sent[:, 0], sent[:, 1:]), Positions(measured[:, 0], measured[:, 1:])


def _topic(bag: Bag, given: str | None, kind: str, option: str) -> str:
    fitting = [topic for topic, found in bag.types.items() if found == kind]
    if given is None and len(fitting) == 1:
        return fitting[0]
    if given is not None and given in fitting:
        return given
    found = given or ("none" if not fitting else "several")
    expected = f"one topic of type {kind}: {', '.join(fitting) or 'the bag has none'}"
    fix = f"{option} TOPIC" if fitting else "record it: docs/bring_up.md"
    raise QvlaError(f"{bag.path}: topic", found, expected, fix)


def _at(measured: Positions, times_s: Array) -> Array:
    columns = [np.interp(times_s, measured.times_s, column) for column in measured.positions.T]
    return np.stack(columns, axis=1)


def _sent(sent: Velocities, ends_s: Array) -> Array:
    """The displacements [M, 3] that were sent in the windows that end then."""
    lasted_s = np.minimum(np.diff(sent.times_s), HELD_S)
    ways = np.cumsum(lasted_s[:, None] * sent.velocities[:-1], axis=0)
    travelled = np.concatenate([np.zeros((1, 3)), ways])

    def by(times_s: Array) -> Array:
        index = np.maximum(np.searchsorted(sent.times_s, times_s, side="right") - 1, 0)
        since_s = np.clip(times_s - sent.times_s[index], 0.0, HELD_S)
        return travelled[index] + since_s[:, None] * sent.velocities[index]

    return by(ends_s) - by(ends_s - WINDOW_S)


def _likeness(told: Array, moved: Array) -> float:
    """The cosine of the angle between two motions, -1 to 1; 0 where one is none."""
    size = np.sqrt((told**2).sum() * (moved**2).sum())
    return float((told * moved).sum() / size) if size > 0.0 else 0.0
