"""Measures how far the commands of the bundled policy lead an arm that follows them late.

    python benchmarks/leads.py [--bundle DIR] [--episodes 4]

The policy drives LIBERO's arm, a task each episode. The chunks of it are then carried out once more
by the node's own controller with the limits of config/robots/franka_cartesian, for arms whose
position follows with a first-order lag and is measured some time later. What is printed is the
largest lead along an axis, m, and of the turn, rad: what max_linear_lead and max_angular_lead_rad
must be above, if the arm is not to be stopped in normal work.
"""

from __future__ import annotations

import argparse
import os
from collections import deque
from dataclasses import asdict
from pathlib import Path

import numpy as np
import yaml
from private_graph import private_graph

from qvla_ros.bundle import ActionSpec
from qvla_ros.control import rotation
from qvla_ros.control.controller import Controller
from qvla_ros.control.limits import motion_limits
from qvla_ros.control.measurement import REST_S
from qvla_ros.control.setpoint import Setpoint, motion_spec
from qvla_ros.control.settings import ControllerSettings
from qvla_ros.control.timeline import PlannedChunk
from qvla_ros.parameters.policy import PolicyParameters
from qvla_ros.parameters.table import from_values
from qvla_ros.resources import share_path

LATE_S = ((0.0, 0.0), (0.02, 0.03), (0.03, 0.05), (0.05, 0.05), (0.1, 0.1))
CONTROL_HZ = 100.0
NEVER_S = 1e6
CAMERA_SIZE = 256


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle")
    parser.add_argument("--episodes", type=int, default=4)
    args = parser.parse_args()
    with private_graph(args.bundle) as graph:
        actions, episodes = chunks_of_episodes(graph.bundle, args.episodes)
    print(f"{args.episodes} episodes, {sum(map(len, episodes))} chunks")
    print("| measured late, ms | lag of the arm, ms | lead, mm | lead, rad |")
    print("|---|---|---|---|")
    for delay_s, lag_s in LATE_S:
        leads = np.array([largest_lead(actions, chunks, delay_s, lag_s) for chunks in episodes])
        linear, turn = leads.max(axis=0)
        print(f"| {1e3 * delay_s:.0f} | {1e3 * lag_s:.0f} | {1e3 * linear:.1f} | {turn:.3f} |")


def chunks_of_episodes(
    bundle_dir: Path, episodes: int
) -> tuple[ActionSpec, list[list[np.ndarray]]]:
    """The chunks float64 [K, A] of each episode, in turn."""
    os.environ.setdefault("MUJOCO_GL", "egl")
    os.environ.setdefault("LP_NUM_THREADS", "1")
    from qvla_ros.policy import load_policy
    from qvla_ros.simulation.held_task import held_simulation
    from qvla_ros.simulation.in_process import sensed
    from qvla_ros.simulation.rollout import Rollout, execute

    policy = load_policy(bundle_dir, "onnxruntime", threads=1)
    found = []
    for task_id in range(episodes):
        task = held_simulation("libero_object", task_id, CAMERA_SIZE)
        observation = task.reset(0, 0)
        policy.reset()
        rollout = Rollout()
        chunks = []
        while not rollout.success and rollout.steps < task.max_steps:
            seen = sensed(observation, policy.bundle, task.instruction)
            chunks.append(policy.infer(seen).actions)
            observation = execute(task, rollout, observation, chunks[-1])
        found.append(chunks)
    return policy.bundle.actions, found


def largest_lead(
    actions: ActionSpec, chunks: list[np.ndarray], delay_s: float, lag_s: float
) -> tuple[float, float]:
    """Along an axis, m, and of the turn, rad, over one episode."""
    robot = yaml.safe_load(share_path("config/robots/franka_cartesian/node.yaml").read_text())
    given = from_values(PolicyParameters, robot["/**"]["ros__parameters"])
    period_s = 1.0 / CONTROL_HZ
    settings = ControllerSettings(
        period_s, NEVER_S, NEVER_S, NEVER_S, measured_velocity_margin=np.inf
    )
    limits = {**asdict(given.limits), "linear_low": [-9.0], "linear_high": [9.0]}
    spec = motion_spec(actions, 0.05, 0.5)
    controller = Controller(settings, spec, motion_limits(3, **limits))
    at = Setpoint(np.array([0.5, 0.0, 0.3]), rotation.from_rotation_vector([3.0, 0.0, 0.0]), 1.0)
    seen = deque([at] * (round(delay_s / period_s) + 1))
    now_ns = 10**18
    largest = np.zeros(2)
    for early_s in (2.0 * REST_S, 0.0):
        seen_ns = now_ns - round(1e9 * early_s)
        controller.feed_input(seen_ns)
        controller.tick(seen_ns, 1e-9 * seen_ns, at)
    chunk_periods = round(len(chunks[0]) * actions.control_period_s / period_s)
    for period in range(len(chunks) * chunk_periods):
        now_ns += round(1e9 * period_s)
        controller.feed_input(now_ns)
        controller.tick(now_ns, 1e-9 * now_ns, seen[0])
        if not controller.armed:
            controller.arm(at, now_ns)
        if period % chunk_periods == 0:
            chunk = chunks[period // chunk_periods]
            controller.set_chunk(PlannedChunk(now_ns, actions.control_period_s, chunk), now_ns)
        assert controller.motion is not None
        command = controller.motion.setpoint
        largest = np.maximum(largest, lead(command, seen[0]))
        at = followed(at, command, 1.0 if lag_s == 0.0 else 1.0 - np.exp(-period_s / lag_s))
        seen.append(at)
        seen.popleft()
    return float(largest[0]), float(largest[1])


def lead(command: Setpoint, measured: Setpoint) -> tuple[float, float]:
    assert command.quaternion_xyzw is not None
    assert measured.quaternion_xyzw is not None
    turn = rotation.between(measured.quaternion_xyzw, command.quaternion_xyzw)
    return float(np.abs(command.linear - measured.linear).max()), float(np.linalg.norm(turn))


def followed(at: Setpoint, command: Setpoint, share: float) -> Setpoint:
    """Where an arm is after one period that goes that share of the way."""
    assert command.quaternion_xyzw is not None
    assert at.quaternion_xyzw is not None
    turned = rotation.slerp(at.quaternion_xyzw, command.quaternion_xyzw, share)
    return Setpoint(at.linear + share * (command.linear - at.linear), turned, command.gripper)


if __name__ == "__main__":
    main()
