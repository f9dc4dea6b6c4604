"""Measures how an arm that is sent velocities keeps the box when it is late, and when it stops.

    python benchmarks/late_arms.py

The node's own controller pushes an end effector at a wall for ten seconds (0.25 m/s, 1 m/s^2, 50
Hz). Its velocity follows with a first-order lag and its pose is measured some time later. What is
printed is how far it goes beyond the wall, and how far it still swings in the last four seconds,
for several values of `reaction_time_s`; 0 is the behaviour without a prediction. Then arms that do
not follow: after what time they are stopped; and how many are stopped that do follow. No ROS, no
clock: the same numbers everywhere.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from qvla_ros.testing.velocity_drive import LateArm, Limits, drive

LATE_S = ((0.0, 0.0), (0.02, 0.03), (0.05, 0.05), (0.1, 0.0), (0.0, 0.1), (0.1, 0.1), (0.15, 0.1))
REACTION_TIMES_S = (0.0, 0.1, 0.2, 0.4)
DOWN = np.array([0.0, 0.0, -1.0])
SECONDS = 10.0
AT_THE_END_S = 4.0
WANDER_S = 8.0
GAINS = {
    "stands still": 0.0,
    "goes the other way": -1.0,
    "three times too fast": 3.0,
    "a third of the speed": 0.33,
    "follows": 1.0,
}
SPEEDS = {"full": Limits(), "phase slow": Limits(max_velocity=0.05, max_acceleration=0.25)}


def main() -> None:
    columns = [f"reaction_time_s {each:g}" for each in REACTION_TIMES_S]
    print("mm beyond the wall / swing in the last 4 s, mm\n")
    print(f"| pose late ms | arm lag ms | {' | '.join(columns)} |\n|{'---|' * (2 + len(columns))}")
    for delay_s, lag_s in LATE_S:
        cells = []
        for reaction_s in REACTION_TIMES_S:
            limits = Limits(reaction_time_s=reaction_s)
            driven = drive(LateArm(delay_s, lag_s), limits, SECONDS, DOWN)
            beyond_mm = 1e3 * max(driven.beyond_m, 0.0)
            cells.append(f"{beyond_mm:.1f} / {1e3 * driven.swing_m(AT_THE_END_S):.1f}")
        print(f"| {1e3 * delay_s:.0f} | {1e3 * lag_s:.0f} | {' | '.join(cells)} |", flush=True)
    print(f"\nstopped after, s\n\n| arm, 50 ms late and 50 ms of lag | {' | '.join(SPEEDS)} |")
    print(f"|---|{'---|' * len(SPEEDS)}")
    for name, gain in GAINS.items():
        cells = []
        for limits in SPEEDS.values():
            driven = drive(LateArm(0.05, 0.05, gain), limits, SECONDS, DOWN)
            cells.append("never" if math.isinf(driven.stopped_s) else f"{driven.stopped_s:.2f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    drives = list(wanderings())
    print(f"\nstopped though they follow: {sum(drives)} of {len(drives)}")


def wanderings() -> Iterator[bool]:
    """Whether arms that follow random plans were stopped."""
    arms = [LateArm(*late) for late in itertools.product((0.0, 0.1), (0.0, 0.1))]
    speeds = [*SPEEDS.values(), Limits(max_velocity=0.5, max_acceleration=4.0)]
    for arm, limits, reaction_s, seed in itertools.product(arms, speeds, (0.0, 0.2, 0.4), (0, 1)):
        late = replace(limits, reaction_time_s=reaction_s)
        driven = drive(arm, late, WANDER_S, np.random.default_rng(seed))
        yield driven.stop is not None


if __name__ == "__main__":
    main()
