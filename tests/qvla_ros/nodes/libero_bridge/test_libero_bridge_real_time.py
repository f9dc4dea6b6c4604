"""The bridge in real time: /clock, late chunks and injected faults, over DDS, without physics.

The tiny bundle's chunks hold four actions of 50 ms, so that a latency of 0.2 s uses a whole chunk
up.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qvla_ros.nodes.libero_bridge.main import main
from qvla_ros.observation import Observation, proprioception_vector
from qvla_ros.policy import load_policy
from qvla_ros.simulation.fake import FakeTask
from qvla_ros.simulation.motion import rms_jerk_m_s3
from qvla_ros.simulation.real_time import Conditions, LateChunk, RealTimeArm
from qvla_ros.simulation.rollout import Rollout
from qvla_ros.simulation.specification import CONTROL_PERIOD_S, FINGER_NAMES, PROPRIOCEPTION_NAMES

STEPS = 24
CHUNK_S = 0.2


@pytest.fixture
def policy(start: Callable, bundle_dir: Path) -> Callable:
    """policy(namespace, backend, **parameters) starts a policy node with the tiny bundle, on
    simulated time.
    """

    def run(namespace: str, backend: str, **parameters: Any) -> Any:
        given = {"bundle": str(bundle_dir), "backend": backend, "use_sim_time": True, **parameters}
        return start("policy", given, namespace)

    return run


@pytest.fixture
def bridge(start: Callable) -> Callable:
    """bridge(policies, **parameters) starts the bridge on the fake simulator, in real time by
    default.
    """

    def run(policies: list[str], **parameters: Any) -> Any:
        fake = {
            "simulator": "fake",
            "task_suite_name": "fake",
            "camera_size": 32,
            "timing": "real_time",
        }
        return start("libero_bridge", {"policies": policies, **fake, **parameters})

    return run


def _episodes(process: Any) -> list[dict]:
    assert process.wait() == 0, process.stderr
    return [event for event in process.events if event["event"] == "episode"]


def test_every_initial_state_is_run_under_all_conditions_and_resumes(
    policy: Callable, bridge: Callable, tmp_path: Path
) -> None:
    policy("x", "sine")
    sweep = {
        "latencies_s": [0.0, CHUNK_S],
        "handovers": ["skip", "restart"],
        "observation_period_s": CHUNK_S,
    }
    first = bridge(["x"], max_steps=STEPS, output_dir=str(tmp_path), **sweep)
    episodes = _episodes(first)
    assert first.events[0]["episodes"] == 4
    assert [e["label"] for e in episodes] == [
        "skip 0 ms",
        "restart 0 ms",
        "skip 200 ms",
        "restart 200 ms",
    ]
    now, again, spent, late = (e["real_time"] for e in episodes)
    assert now["hold_steps"] == again["hold_steps"] == 0
    assert [e["success"] for e in episodes] == [True, True, False, True]
    # Nothing of a chunk is left when it comes: the arm never moves.
    assert (spent["hold_steps"], spent["chunks"], spent["skipped_actions"]) == (STEPS, 6, 24)
    assert spent["latency_s"] == pytest.approx(CHUNK_S)
    assert late["hold_steps"] == 4
    assert late["skipped_actions"] == 0
    second = bridge(
        ["x"], max_steps=STEPS, output_dir=str(tmp_path), **{**sweep, "latencies_s": [CHUNK_S, 0.1]}
    )
    assert [e.get("resumed", False) for e in _episodes(second)] == [True, True, False, False]


def test_without_latency_it_is_the_lock_step(policy: Callable, bridge: Callable) -> None:
    policy("still", "sine", use_sim_time=False)
    policy("going", "sine")
    (still,) = _episodes(bridge(["still"], timing="lock_step"))
    (going,) = _episodes(bridge(["going"], latencies_s=[0.0], observation_period_s=CHUNK_S))
    assert "real_time" not in still
    for name in ("success", "steps", "jerk_m_s3", "reason"):
        assert going[name] == still[name], name
    assert len(going["inference_ms"]) == len(still["inference_ms"])


def test_over_dds_an_episode_is_what_it_is_in_one_process(
    policy: Callable, bridge: Callable, bundle_dir: Path
) -> None:
    # The tiny graph answers with what the arm senses: pairing an image with another moment's joints
    # would show.
    policy("x", "onnxruntime", max_stamp_spread_s=0.025)
    (episode,) = _episodes(bridge(["x"], max_steps=STEPS, latencies_s=[0.1]))
    task = FakeTask("fake", 0, 32, STEPS)
    rollout = Rollout()
    clock = SimpleNamespace(now_ns=0)
    clock.advance = lambda nanoseconds: setattr(clock, "now_ns", clock.now_ns + nanoseconds)
    arm = RealTimeArm(task, rollout, Conditions(0.1, "skip", 0, 0.0), clock, lambda: None)
    local = load_policy(bundle_dir, "onnxruntime")
    observation = task.reset(0)
    while rollout.steps < STEPS and not rollout.success:
        fingers = dict(zip(FINGER_NAMES, observation.gripper_positions_m, strict=True))
        pose = (observation.eef_position_m, observation.eef_quaternion_xyzw)
        proprioception = proprioception_vector(PROPRIOCEPTION_NAMES, fingers, *pose)
        seen = Observation(observation.images, proprioception, task.instruction, clock.now_ns, {})
        observation = arm.go_on(
            observation, LateChunk(local.infer(seen).actions, clock.now_ns, 0.1)
        )
    assert episode["steps"] == rollout.steps > 4
    assert episode["success"] == rollout.success
    assert episode["jerk_m_s3"] == rms_jerk_m_s3(rollout.commanded_m, CONTROL_PERIOD_S)
    assert episode["real_time"]["looks"] == arm.counts.looks


def test_a_measured_latency_is_what_the_chunk_says(policy: Callable, bridge: Callable) -> None:
    policy("x", "zero")
    (episode,) = _episodes(bridge(["x"], max_steps=8, observation_period_s=0.1))
    assert episode["label"] == "skip measured"
    assert 0 < episode["real_time"]["latency_s"] < 10
    assert episode["real_time"]["chunks"] == len(episode["inference_ms"])


def test_faults_go_unanswered_are_counted_and_do_not_stop_time(
    policy: Callable, bridge: Callable
) -> None:
    policy("x", "zero")
    faults = [
        "drop_camera:agentview@0.2+0.2",
        "wrong_size_image:wrist@0.6+0.2",
        "freeze_camera@1.0+0.1",
    ]
    faults.append("nan_proprioception@1.4+0.1")
    conditions = {"latencies_s": [0.0], "observation_period_s": CHUNK_S}
    (episode,) = _episodes(bridge(["x"], max_steps=36, faults=faults, **conditions))
    assert episode["conditions"]["faults"] == faults
    assert episode["steps"] == 36
    counts = episode["real_time"]
    kinds = ("drop_camera", "wrong_size_image", "freeze_camera", "nan_proprioception")
    assert counts["faults"] == dict.fromkeys(kinds, 1)
    assert (counts["looks"], counts["chunks"], counts["unanswered"]) == (9, 6, 3)
    assert counts["hold_steps"] == 12  # three looks without an answer, each a chunk long


def test_the_bridge_ends_on_a_signal(policy: Callable, bridge: Callable) -> None:
    policy("x", "zero")
    process = bridge(["x"], faults=["kill@0.4"], latencies_s=[0.0], observation_period_s=CHUNK_S)
    assert process.wait() == -9
    steps = [event["step"] for event in process.events if event["event"] == "step"]
    assert steps == [4]


def test_a_policy_on_system_time_is_refused_with_the_fix(
    policy: Callable, bridge: Callable
) -> None:
    policy("x", "zero", use_sim_time=False)
    process = bridge(["x"], response_timeout_s=2.0)
    assert process.wait() == 3
    reason = process.events[-1]["reason"]
    assert "stale" in reason
    assert "-p use_sim_time:=true" in reason


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("latencies_s:=[-0.1]", "latency_s: got -0.1"),
        ("handovers:=[jump]", "one of skip, restart, wait"),
        ("faults:=['drop_camera:left@1']", "one of the cameras agentview, wrist"),
        ("latencies_s:=[0.1, 0.1]", "parameter latencies_s"),
    ],
)
def test_conditions_and_faults_that_mean_nothing_end_with_exit_code_2(
    ros_environment: dict, capfd: pytest.CaptureFixture[str], parameter: str, message: str
) -> None:
    assert main(["--ros-args", "-p", "timing:=real_time", "-p", parameter]) == 2
    written = capfd.readouterr()
    assert message in written.err
    assert message in json.loads(written.out.splitlines()[-1])["reason"]
