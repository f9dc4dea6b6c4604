"""Attacks the controller with slips of the measured state, and looks for a command beyond a limit.

    python benchmarks/measurement_attack.py [--sequences 100000] [--seed 0]

In each sequence an arm goes for the walls of its box, is measured where it was commanded to for up
to 20 periods, then up to four times somewhere else by 1 mm to 3 m or by any turn, or as not a
number, and is watched until it is at rest. Prints how many sequences there were, how they ended and
how many commands breached the box, the velocity, the deceleration of a stop, or the turn.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter

import numpy as np

from qvla_ros.control import rotation
from qvla_ros.control.setpoint import Setpoint
from qvla_ros.testing.measurement_attack import BOX, Attack, Slip

KINDS = ("delta_end_effector_pose", "end_effector_pose")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sequences", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    random = np.random.default_rng(args.seed)
    ends: Counter[str] = Counter()
    breaches: Counter[str] = Counter()
    commands = 0
    for index in range(args.sequences):
        attack = one_sequence(random, KINDS[index % 2])
        commands += len(attack.commands) - 1
        ends["no stop" if attack.stop is None else attack.stop.name] += 1
        breaches[attack.breach()] += 1
    breaches.pop("", None)
    print(f"{args.sequences} sequences, {commands} commands; they ended by {dict(ends)}")
    print(f"breaches: {sum(breaches.values())} {dict(breaches)}")


def one_sequence(random: np.random.Generator, kind: str) -> Attack:
    """An attack that is over."""
    place = random.uniform(-BOX, BOX, 3)
    attack = Attack(kind, Setpoint(place, rotation.from_rotation_vector(random.uniform(-1, 1, 3))))
    for _ in range(random.integers(0, 20)):
        attack.follow()
    for _ in range(random.integers(1, 5)):
        attack.slip(random_slip(random))
        if random.random() < 0.5:
            attack.follow()
    attack.run_out()
    return attack


def random_slip(random: np.random.Generator) -> Slip:
    """From what passes for noise to what is far outside the box, along one axis or all."""
    size = 10.0 ** random.uniform(-3.0, 0.5)
    direction = random.normal(size=3)
    if random.random() < 0.5:
        direction = np.eye(3)[random.integers(3)] * random.choice([-1.0, 1.0])
    linear = size * direction / np.linalg.norm(direction)
    turn_rad = random.uniform(-math.pi, math.pi) if random.random() < 0.3 else None
    return Slip(tuple(linear.tolist()), turn_rad, bool(random.random() < 0.02))


if __name__ == "__main__":
    main()
