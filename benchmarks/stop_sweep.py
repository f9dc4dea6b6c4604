"""Brakes from a million random motions, and looks for a command beyond a limit.

    python benchmarks/stop_sweep.py [--stops 1000000] [--seed 0]

Poses go for random targets, near, far and beyond the walls, for up to 42 commands, each set of
limits another; then they brake as every stop does, until they are at rest. What the arm measures
does not come into it. Prints how many commands breached the box, the step, the velocity, or the
deceleration of a stop.
"""

from __future__ import annotations

import argparse
from itertools import pairwise

import numpy as np

from qvla_ros.control import rotation
from qvla_ros.control.limits import MotionLimits, motion_limits, stop_limits
from qvla_ros.control.motion import MotionState, at_rest
from qvla_ros.control.safety_chain import limit_motion
from qvla_ros.control.setpoint import Setpoint
from qvla_ros.control.stop_reason import StopReason
from qvla_ros.control.stopping import Stop, advance_stop

BLOCK = 10_000
ROUNDING = 1e-9


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stops", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    random = np.random.default_rng(args.seed)
    commands = 0
    breaches = 0
    for done in range(BLOCK, args.stops + 1, BLOCK):
        limits, period_s = random_limits(random)
        motions = stop_all(random_motions(random, limits, period_s), limits, period_s)
        commands += BLOCK * (len(motions) - 1)
        breaches += count_breaches(motions, limits, period_s)
        print(f"{done} stops, {commands} commands, {breaches} breaches", flush=True)


def random_limits(random: np.random.Generator) -> tuple[MotionLimits, float]:
    """Limits of a pose in a box of 0.2 to 2 m, and a period of 5 to 50 ms."""
    period_s = float(random.uniform(0.005, 0.05))
    box = random.uniform(0.1, 1.0, 3)
    velocity = random.uniform(0.1, 2.0, 3)
    acceleration = velocity / random.uniform(5.0, 40.0) / period_s
    turn = float(random.uniform(0.2, 2.0))
    turn_change = turn / float(random.uniform(5.0, 40.0)) / period_s
    limits = motion_limits(
        3, -box, box, 2.0 * velocity * period_s, velocity, acceleration, 0.5, turn, turn_change
    )
    return limits, period_s


def random_motions(
    random: np.random.Generator, limits: MotionLimits, period_s: float
) -> MotionState:
    """BLOCK motions within the limits."""
    box = limits.linear_high
    state = at_rest(Setpoint(random.uniform(-box, box, (BLOCK, 3)), random_turns(random)))
    for _ in range(random.integers(1, 4)):
        target = Setpoint(
            random.uniform(-box, box, (BLOCK, 3)) * random.choice([0.5, 3.0]), random_turns(random)
        )
        for _ in range(random.integers(3, 15)):
            state, _ = limit_motion(target, state, limits, period_s)
    return state


def random_turns(random: np.random.Generator) -> np.ndarray:
    return rotation.from_rotation_vector(random.uniform(-1.7, 1.7, (BLOCK, 3)))


def stop_all(state: MotionState, limits: MotionLimits, period_s: float) -> list[MotionState]:
    """The last command, and those of the stop, until all are at rest."""
    braking = stop_limits(limits)
    motions = [state]
    stop: Stop | None = Stop(StopReason.disarmed, 0.0)
    while stop is not None:
        state, stop = advance_stop(stop, state, braking, limits, period_s)
        motions.append(state)
    return motions


def count_breaches(motions: list[MotionState], limits: MotionLimits, period_s: float) -> int:
    """How many of the commands breach a limit."""
    breaches = 0
    braking = stop_limits(limits)
    for before, now in pairwise(motions):
        outside = (np.abs(now.setpoint.linear) > limits.linear_high).any(axis=1)
        speed = np.abs(now.setpoint.linear - before.setpoint.linear) / period_s
        fast = (speed > limits.max_linear_velocity * (1.0 + ROUNDING)).any(axis=1)
        change = np.abs(now.linear_velocity - before.linear_velocity) / period_s
        hard = (change > braking.max_linear_acceleration * (1.0 + ROUNDING) + ROUNDING).any(axis=1)
        turn = now.angular_velocity_rad_s - before.angular_velocity_rad_s
        most = braking.max_angular_acceleration_rad_s2 * (1.0 + ROUNDING) + ROUNDING
        twisted = np.linalg.norm(turn, axis=1) / period_s > most
        breaches += int((outside | fast | hard | twisted).sum())
    last = motions[-1]
    moving = last.linear_velocity.any(axis=1) | last.angular_velocity_rad_s.any(axis=1)
    return breaches + int(moving.sum())


if __name__ == "__main__":
    main()
