"""Measures what joint_trajectory_controller asks of the joints when this node drives them.

    python benchmarks/joint_trajectories.py [--seconds 60]

The node's own controller is ticked at the times of a loaded machine, its messages reach a model of
the robot's controller (qvla_ros.testing.trajectory_controller) late, and the positions that this
sends to the joints at 1 kHz are looked at: acceleration against the limit, and how many stretches
of 10 ms the library ruckig calls infeasible, that is, for how many its time-optimal motion within
1.2 times the limit, from the state at the beginning to that at the end, takes longer. Then
the node is killed in the middle of a motion. No ROS, no clock: the same numbers everywhere.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from ruckig import InputParameter, Result, Ruckig
from ruckig import Trajectory as RuckigTrajectory

from qvla_ros.testing.trajectory_drive import UPDATE_S, Drive, Joints, Load, drive

AHEAD = Joints()
WAYS = {
    "one point, no velocity, a period ahead (as before)": replace(AHEAD, single_points=True),
    "trajectories, positions alone": replace(AHEAD, with_velocities=False),
    "trajectories with velocities (the default)": AHEAD,
    "the same, look_ahead_s 0.03": replace(AHEAD, look_ahead_s=0.03),
    "the same, look_ahead_s 0.1": replace(AHEAD, look_ahead_s=0.1),
}
LOADS = {
    "idle": Load(0.1, 0.01, 2e-4),
    "loaded": Load(),
    "loaded, messages 5 ms late": Load(transport_s=0.005),
    "loaded, and the controller's receiver held up as often": Load(receiver_stalls_per_s=3.0),
}
KILLED_S = 5.0
AFTER_S = 1.0
STRETCH = 10  # updates
ROUNDING = 1.01  # of velocities and times, which are seen at 1 kHz
MORE = 1.2  # times the acceleration limit


def infeasible_share(done: Drive, joints: Joints) -> float:
    """The share of stretches of STRETCH updates that no motion within the limits can make."""
    velocities = done.velocities
    middles = 0.5 * (done.positions[1:] + done.positions[:-1])
    bad = count = 0
    for first in range(0, len(velocities) - STRETCH, STRETCH):
        for joint in range(joints.count):
            last = first + STRETCH
            begin = (middles[first, joint], velocities[first, joint])
            end = (middles[last, joint], velocities[last, joint])
            count += 1
            bad += not feasible(begin, end, STRETCH * UPDATE_S, joints)
    return bad / count


def feasible(
    begin: tuple[float, float], end: tuple[float, float], whole_s: float, joints: Joints
) -> bool:
    """Whether ruckig gets from one position and velocity to another in `whole_s`."""
    if max(abs(begin[1]), abs(end[1])) > joints.max_velocity * ROUNDING:
        return False
    asked = InputParameter(1)
    asked.max_velocity = [joints.max_velocity * ROUNDING]
    asked.max_acceleration = [joints.max_acceleration * MORE]
    asked.current_position = [begin[0]]
    asked.current_velocity = [begin[1]]
    asked.target_position = [end[0]]
    asked.target_velocity = [end[1]]
    found = RuckigTrajectory(1)
    result = Ruckig(1).calculate(asked, found)
    return result in (Result.Working, Result.Finished) and found.duration <= whole_s * ROUNDING


def row(name: str, joints: Joints, load: Load, seconds: float) -> str:
    driven = drive(joints, load, seconds)
    killed = drive(joints, load, KILLED_S + AFTER_S, dies_s=KILLED_S)
    killed_at = round(KILLED_S / UPDATE_S)
    accelerations = np.abs(driven.accelerations)
    braking = np.abs(killed.accelerations[killed_at:])
    moved = np.abs(killed.positions - killed.positions[killed_at]).max(axis=1)[killed_at:]
    moving = np.flatnonzero(np.abs(killed.velocities[killed_at:]).max(axis=1) > 1e-9)
    rest_s = UPDATE_S * (moving.max(initial=-1) + 1)
    cells = (
        f"{1e3 * np.percentile(driven.gaps_s, 99):.0f}",
        *(f"{value:.2f}" for value in percentiles(accelerations)),
        f"{100 * infeasible_share(driven, joints):.1f} %",
        f"{braking.max():.2f}",
        f"{rest_s:.2f}",
        f"{moved.max():.3f}",
        f"{len(driven.rejected)}",
    )
    return f"| {name} | {' | '.join(cells)} |"


def percentiles(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """p99, p99.9 and the largest."""
    p99, p999 = np.percentile(values, (99, 99.9))
    return float(p99), float(p999), float(values.max())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds = parser.parse_args().seconds
    print(
        f"7 joints at 100 Hz, limits {AHEAD.max_velocity:g} rad/s and "
        f"{AHEAD.max_acceleration:g} rad/s^2; accelerations in rad/s^2"
    )
    columns = (
        "sent",
        "p99 gap ms",
        "acceleration p99",
        "p99.9",
        "largest",
        "ruckig: infeasible",
        "largest after kill -9",
        "at rest after s",
        "moved rad",
        "refused",
    )
    for load_name, load in LOADS.items():
        print(f"\n{load_name}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
        for name, joints in WAYS.items():
            print(row(name, joints, load, seconds), flush=True)


if __name__ == "__main__":
    main()
