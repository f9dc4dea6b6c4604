"""Limits on motion: the box, and how far, how fast and how suddenly a command may move."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qvla_ros.errors import QvlaError

Array = NDArray[np.float64]

STOP_DECELERATION = 2.0  # times the acceleration limit: how hard a stop brakes by default


@dataclass(frozen=True)
class MotionLimits:
    """Limits on how much one command may differ from the one before.

    Linear ones float64 [n], in m, m/s, m/s² (or rad, ...); infinity means no limit.
    """

    linear_low: Array
    linear_high: Array
    max_linear_step: Array
    max_linear_velocity: Array
    max_linear_acceleration: Array
    max_angular_step_rad: float
    max_angular_velocity_rad_s: float
    max_angular_acceleration_rad_s2: float

    def __post_init__(self) -> None:
        fix = "give a number above 0, or leave it out for no limit"
        for field in fields(self):
            limit = np.asarray(getattr(self, field.name))
            if field.name.startswith("max_") and not (limit > 0.0).all():
                raise QvlaError(f"parameter {field.name}", limit.tolist(), "numbers above 0", fix)
        if not (self.linear_low < self.linear_high).all():
            value = f"{self.linear_low.tolist()} to {self.linear_high.tolist()}"
            raise QvlaError(
                "parameter linear_low",
                value,
                "low < high on every axis",
                "correct linear_low or linear_high",
            )


def motion_limits(
    axes: int,
    linear_low: ArrayLike = (),
    linear_high: ArrayLike = (),
    max_linear_step: ArrayLike = (),
    max_linear_velocity: ArrayLike = (),
    max_linear_acceleration: ArrayLike = (),
    max_angular_step_rad: float = np.inf,
    max_angular_velocity_rad_s: float = np.inf,
    max_angular_acceleration_rad_s2: float = np.inf,
) -> MotionLimits:
    """Limits of `axes` linear axes: one number each, one for all, or nothing for no limit.

    Else QvlaError.
    """

    def each(name: str, value: ArrayLike, absent: float) -> Array:
        return _each_axis(name, value, np.full(axes, absent))

    return MotionLimits(
        each("linear_low", linear_low, -np.inf),
        each("linear_high", linear_high, np.inf),
        each("max_linear_step", max_linear_step, np.inf),
        each("max_linear_velocity", max_linear_velocity, np.inf),
        each("max_linear_acceleration", max_linear_acceleration, np.inf),
        max_angular_step_rad,
        max_angular_velocity_rad_s,
        max_angular_acceleration_rad_s2,
    )


def stop_limits(
    limits: MotionLimits,
    max_stop_deceleration: ArrayLike = (),
    max_stop_angular_deceleration_rad_s2: float = 0.0,
) -> MotionLimits:
    """The limits of a stop: those of any motion, but for how suddenly it may slow down.

    max_stop_deceleration: m/s² or rad/s², one number an axis, or one for all; nothing, or 0 for the
    angular one: STOP_DECELERATION times the acceleration limit. QvlaError for less than the
    acceleration limit: walls are braked for by that one, so a softer stop could not end in front of
    them.
    """
    usual = STOP_DECELERATION * limits.max_linear_acceleration
    linear = _each_axis("max_stop_deceleration", max_stop_deceleration, usual)
    angular = max_stop_angular_deceleration_rad_s2
    if angular == 0.0:
        angular = STOP_DECELERATION * limits.max_angular_acceleration_rad_s2
    for name, given, least in (
        ("max_stop_deceleration", linear, limits.max_linear_acceleration),
        (
            "max_stop_angular_deceleration_rad_s2",
            np.array([angular]),
            np.array([limits.max_angular_acceleration_rad_s2]),
        ),
    ):
        if not (given >= least).all():
            expected = f"at least the acceleration limit {least.tolist()}, by which walls are kept"
            fix = f"raise {name}, or leave it out for {STOP_DECELERATION:g} times that limit"
            raise QvlaError(f"parameter {name}", given.tolist(), expected, fix)
    return replace(limits, max_linear_acceleration=linear, max_angular_acceleration_rad_s2=angular)


def _each_axis(name: str, value: ArrayLike, absent: Array) -> Array:
    """A number an axis; `absent` where none is given. QvlaError for another count."""
    axes = len(absent)
    array = np.atleast_1d(np.asarray(value, np.float64))
    if array.size not in (0, 1, axes):
        fix = f"give {axes} numbers, or one for all axes, or none for the default"
        raise QvlaError(f"parameter {name}", array.tolist(), f"{axes} numbers", fix)
    return absent if array.size == 0 else np.broadcast_to(array, (axes,)).copy()
