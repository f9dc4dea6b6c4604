"""Writes qvla/ActionChunk for the policy node, and checks and reads it for a robot's program."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from qvla.msg import ActionChunk

from qvla_ros.bundle import Bundle
from qvla_ros.errors import QvlaError
from qvla_ros.observation import Observation


def stamp_ns(stamp: Time) -> int:
    """builtin_interfaces/Time as nanoseconds."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def stamp_message(nanoseconds: int) -> Time:
    """Nanoseconds as builtin_interfaces/Time."""
    return Time(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)


def chunk_message(
    bundle: Bundle, actions: NDArray[np.float64], observation: Observation, armed: bool
) -> ActionChunk:
    """The message for un-normalised actions [K, A].

    Latencies are still to be filled in (see `set_latencies`).
    """
    spec = bundle.actions
    message = ActionChunk()
    message.header.stamp = stamp_message(observation.stamp_ns)
    message.header.frame_id = spec.frame
    message.bundle_id = bundle.bundle_id
    message.instruction = observation.instruction
    message.armed = armed
    message.input_topics = list(observation.stamps_ns)
    message.input_stamps = [
        stamp_message(nanoseconds) for nanoseconds in observation.stamps_ns.values()
    ]
    message.kind = spec.kind
    message.names = list(spec.names)
    message.units = list(spec.units)
    message.step_dt = spec.control_period_s
    message.horizon = len(actions)
    message.data = actions.ravel().tolist()
    return message


def set_latencies(message: ActionChunk, latency_ms: Mapping[str, float]) -> None:
    message.latency_names = list(latency_ms)
    message.latency_ms = [float(value) for value in latency_ms.values()]


def chunk_actions(
    message: ActionChunk,
    topic: str,
    kind: str,
    names: Sequence[str],
    units: Sequence[str],
    frame: str,
    period_s: float,
) -> NDArray[np.float64]:
    """Returns the actions [K, A] of a chunk that a robot may execute.

    The robot takes actions of this `kind`, with these `names` and `units`, in `frame`, one every
    `period_s`.

    QvlaError on anything else: another of these, the wrong size, or a number that is not finite.
    """
    fix = "run a bundle that was exported for this robot"
    checks = (
        ("kind", message.kind, kind),
        ("names", list(message.names), list(names)),
        ("units", list(message.units), list(units)),
        ("frame_id", message.header.frame_id, frame),
        ("data", len(message.data), int(message.horizon) * len(names)),
    )
    for field, found, expected in checks:
        if found != expected:
            raise QvlaError(f"{field} of the chunk on {topic}", found, str(expected), fix)
    if message.horizon < 1 or not math.isclose(message.step_dt, period_s, rel_tol=1e-6):
        found = f"horizon {message.horizon}, step_dt {message.step_dt}"
        raise QvlaError(
            f"chunk on {topic}", found, f"at least one action and a period of {period_s:g} s", fix
        )
    actions = np.array(message.data, np.float64).reshape(message.horizon, len(names))
    if not np.isfinite(actions).all():
        raise QvlaError(
            f"data of the chunk on {topic}", "a number that is not finite", "finite numbers", fix
        )
    return actions
