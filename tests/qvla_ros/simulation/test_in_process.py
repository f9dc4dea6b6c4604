"""A policy drives the simulated arm without ROS, and only policies for that arm may."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qvla_ros.bundle import load_bundle
from qvla_ros.errors import QvlaError
from qvla_ros.policy import load_policy
from qvla_ros.simulation.fake import MAX_STEPS, FakeTask
from qvla_ros.simulation.in_process import require_simulated_arm, run_episode


def test_an_episode_says_how_far_the_arm_went_and_when_it_ended(bundle_dir: Path) -> None:
    resting = run_episode(FakeTask("fake", 0, 32), load_policy(bundle_dir, "zero"), 0, 0)
    assert (resting.success, resting.steps) == (False, MAX_STEPS)
    assert resting.path_length_m < 1e-3
    moving = run_episode(FakeTask("fake", 0, 32), load_policy(bundle_dir, "sine"), 0, 0)
    assert moving.success
    assert moving.path_length_m > 0.09  # success is 0.1 m away from the start
    assert moving.steps < MAX_STEPS


def test_an_episode_does_not_depend_on_the_one_before(bundle_dir: Path) -> None:
    policy = load_policy(bundle_dir, "onnxruntime", threads=1)
    task = FakeTask("fake", 0, 32)
    first = run_episode(task, policy, 5, 0)
    run_episode(task, policy, 1, 0)
    again = run_episode(task, policy, 5, 0)
    assert replace(again, inference_ms=()) == replace(first, inference_ms=())


def test_a_policy_for_another_arm_is_refused(bundle_dir: Path) -> None:
    bundle = load_bundle(bundle_dir)
    require_simulated_arm(bundle)
    other = replace(bundle, actions=replace(bundle.actions, kind="delta_joint_position"))
    with pytest.raises(QvlaError, match="only policies for LIBERO's arm"):
        require_simulated_arm(other)
