"""The bridge with policy nodes, each in a process of its own.

`simulator: fake` has no physics; one test has LIBERO.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from qvla_ros.errors import QvlaError
from qvla_ros.nodes.libero_bridge.episode_run import EpisodeRun
from qvla_ros.nodes.libero_bridge.main import main
from qvla_ros.nodes.libero_bridge.policy_link import PolicyAnswer
from qvla_ros.policy import load_policy
from qvla_ros.simulation.fake import FakeTask
from qvla_ros.simulation.in_process import run_episode
from qvla_ros.simulation.libero import LiberoObservation
from qvla_ros.simulation.rollout import REST_STEPS

LONG = 1_000_000  # steps: an episode that ends only by what the test does


@pytest.fixture
def policy(start: Callable, bundle_dir: Path) -> Callable:
    """policy(namespace, backend) starts a policy node with the tiny bundle."""
    return lambda namespace, backend: start(
        "policy", {"bundle": str(bundle_dir), "backend": backend}, namespace
    )


@pytest.fixture
def bridge(start: Callable) -> Callable:
    """bridge(policies, **parameters) starts the bridge on the fake simulator."""

    def run(policies: list[str], **parameters: Any) -> Any:
        fake = {"simulator": "fake", "task_suite_name": "fake", "camera_size": 32}
        return start("libero_bridge", {"policies": policies, **fake, **parameters})

    return run


def _of_kind(events: list[dict], kind: str) -> list[dict]:
    return [event for event in events if event["event"] == kind]


def test_policies_take_turns_from_the_same_initial_states(
    policy: Callable, bridge: Callable, bundle_dir: Path, tmp_path: Path
) -> None:
    for name, backend in (("moving", "sine"), ("resting", "zero")):
        policy(name, backend)
    videos = tmp_path / "video"
    process = bridge(
        ["moving", "resting"], num_trials_per_task=2, init_state_offset=3, video_dir=str(videos)
    )
    assert process.wait() == 0, process.stderr
    events = process.events
    assert events[0] == {"event": "start", "policies": ["moving", "resting"], "episodes": 4}
    assert events[-1] == {"event": "end"}
    episodes = _of_kind(events, "episode")
    assert [(e["init_state"], e["policy"]) for e in episodes] == [
        (3, "moving"),
        (3, "resting"),
        (4, "moving"),
        (4, "resting"),
    ]
    # A point that sways leaves its start; one that is commanded to stay never does.
    assert [e["success"] for e in episodes] == [True, False, True, False]
    # Over DDS an episode is what it is in one process.
    moving = run_episode(FakeTask("fake", 0, 32), load_policy(bundle_dir, "sine"), 3, 0)
    assert (episodes[0]["steps"], episodes[0]["jerk_m_s3"]) == (moving.steps, moving.jerk_m_s3)
    resting = episodes[1]
    assert resting["steps"] == 40
    assert len(resting["inference_ms"]) == len(resting["stamp_to_command_ms"]) == 10
    assert all(ms > 0 for ms in resting["stamp_to_command_ms"])
    assert resting["jerk_m_s3"] < 1e-3
    assert resting["engine"] == "fake (zero): reads no input"
    for name in ("moving", "resting"):
        assert (videos / f"{name}_task0_init3.mp4").read_bytes()[4:8] == b"ftyp"
    assert sorted(path.name for path in videos.iterdir()) == [
        "moving_task0_init3.mp4",
        "resting_task0_init3.mp4",
    ]


def test_finished_episodes_are_not_run_again(
    policy: Callable, bridge: Callable, tmp_path: Path
) -> None:
    policy("moving", "sine")
    first = bridge(["moving"], output_dir=str(tmp_path / "out"))
    assert first.wait() == 0, first.stderr
    second = bridge(["moving"], output_dir=str(tmp_path / "out"), num_trials_per_task=2)
    assert second.wait() == 0, second.stderr
    before, again, new = (_of_kind(first.events, "episode") + _of_kind(second.events, "episode"))[
        :3
    ]
    assert again == {**before, "resumed": True}
    assert "resumed" not in new
    lines = (tmp_path / "out" / "episodes.jsonl").read_text().splitlines()
    assert [json.loads(line)["init_state"] for line in lines] == [0, 1]


def test_a_killed_policy_leaves_the_arm_still_and_the_reason_on_record(
    policy: Callable, bridge: Callable, tmp_path: Path
) -> None:
    victim = policy("victim", "zero")
    process = bridge(["victim"], max_steps=LONG, output_dir=str(tmp_path / "out"))
    process.wait_for_event("step")
    victim.popen.kill()
    assert process.wait() == 3
    error = process.events[-1]
    assert error["event"] == "error"
    assert "/victim/policy/action_chunk" in error["reason"]
    assert "python -m qvla_ros.nodes.policy" in error["reason"]
    assert "held where it was" in error["reason"]
    assert error["hold"]["at_rest"]
    assert not (tmp_path / "out" / "episodes.jsonl").exists()


def test_a_policy_that_hangs_is_late(policy: Callable, bridge: Callable) -> None:
    victim = policy("victim", "zero")
    process = bridge(["victim"], max_steps=LONG, response_timeout_s=1.0)
    process.wait_for_event("step")
    victim.popen.send_signal(signal.SIGSTOP)
    assert process.wait() == 3
    reason = process.events[-1]["reason"]
    assert "no chunk for this observation within" in reason
    assert re.search(r"its last status, \d+\.\d s ago: RUNNING", reason)


def test_every_task_is_run_under_its_own_instruction(policy: Callable, bridge: Callable) -> None:
    policy("moving", "sine")
    process = bridge(["moving"], task_ids=[2, 0])
    assert process.wait() == 0, process.stderr
    episodes = _of_kind(process.events, "episode")
    assert [(e["task_id"], e["instruction"]) for e in episodes] == [
        (2, "fake task 2: move away"),
        (0, "fake task 0: move away"),
    ]


def test_ctrl_c_ends_the_bridge_with_130_and_disarms(
    policy: Callable, bridge: Callable, robot: Any
) -> None:
    policy("x", "zero")
    process = bridge(["x"], max_steps=LONG)
    process.wait_for_event("step")
    robot.wait(lambda: robot.statuses and robot.statuses[-1].armed, "an armed policy")
    process.popen.send_signal(signal.SIGINT)
    assert process.wait() == 130
    robot.wait(lambda: not robot.statuses[-1].armed, "a disarmed policy")
    assert process.events[-1] == {"event": "error", "reason": "interrupted"}
    assert "Traceback" not in process.stderr


def test_an_absent_policy_is_named_with_the_command_that_starts_it(bridge: Callable) -> None:
    process = bridge(["absent"], startup_timeout_s=1.0)
    assert process.wait() == 3
    reason = process.events[-1]["reason"]
    assert "'absent' (/absent/policy/action_chunk): not ready within 1." in reason
    assert "its node is not there" in reason
    assert "-p bundle:=DIR -r __ns:=/absent" in reason


def test_a_disarmed_chunk_is_not_executed(policy: Callable, bridge: Callable, robot: Any) -> None:
    policy("x", "zero")
    process = bridge(["x"], max_steps=LONG)
    process.wait_for_event("step")
    assert robot.arm(False).success
    assert process.wait() == 3
    assert "disarmed" in process.events[-1]["reason"]


def test_a_policy_for_other_cameras_is_recognised_and_disarmed(
    policy: Callable, bridge: Callable, robot: Any
) -> None:
    policy("x", "zero")
    process = bridge(["x"], camera_size=64, response_timeout_s=2.0)
    robot.wait(lambda: robot.statuses and robot.statuses[-1].armed, "an armed policy")
    assert process.wait() == 3
    assert "image size on /x/camera/agentview/image_raw: got 64x64" in process.events[-1]["reason"]
    robot.wait(lambda: not robot.statuses[-1].armed, "a disarmed policy")


def test_an_error_in_mid_chunk_is_raised_after_the_arm_rests_and_the_policy_is_asked_to_disarm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("qvla_ros.nodes.libero_bridge.episode_run.ignore_signals", lambda: None)
    done: list[str] = []

    class FailingOnce(FakeTask):
        def step(self, action: np.ndarray, render: bool) -> tuple[LiberoObservation, bool]:
            done.append("move" if action[:3].any() else "stay")
            if len(done) == 3:
                raise QvlaError("simulator", "a hiccup", "a step", "none")
            return super().step(action, render)

    def refuse_to_disarm() -> None:
        done.append("disarm")
        raise RuntimeError("the policy does not answer")

    forward = np.tile([0.1, 0, 0, 0, 0, 0, 1.0], (8, 1))
    link: Any = SimpleNamespace(
        publish_instruction=lambda instruction: None,
        arm=lambda armed: None,
        request=lambda *question: PolicyAnswer(forward, 0, 1.0, 0, 0.001),
        now_ns=lambda: 0,
        disarm_if_it_listens=refuse_to_disarm,
    )
    with pytest.raises(QvlaError, match="a hiccup"):
        EpisodeRun(FailingOnce("fake", 0, 8), link, 1.0, filmed=False).run(0, 0, lambda step: None)
    assert done == ["move"] * 3 + ["stay"] * (1 + REST_STEPS) + ["disarm"]


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("policies:=[a, a]", "parameter policies"),
        ("policies:=[]", "parameter policies"),
        ("simulator:=gazebo", "one of libero, fake"),
        ("num_trials_per_task:=0", "parameter num_trials_per_task: got 0"),
        ("task_ids:=[one]", "parameter task_ids: got ['one']; expected integer array"),
        ("timing:=fast", "one of lock_step, real_time"),
        ("latencies_s:=[0.1]", "parameter latencies_s: got [0.1]; expected timing real_time"),
        ("faults:=[kill@3]", "parameter faults"),
    ],
)
def test_a_wrong_parameter_ends_with_exit_code_2(
    ros_environment: dict, capfd: pytest.CaptureFixture[str], parameter: str, message: str
) -> None:
    assert main(["--ros-args", "-p", parameter]) == 2
    written = capfd.readouterr()
    assert message in written.err
    assert message in json.loads(written.out.splitlines()[-1])["reason"]


def test_initial_states_that_do_not_exist_are_refused(policy: Callable, bridge: Callable) -> None:
    policy("x", "zero")
    process = bridge(["x"], init_state_offset=49, num_trials_per_task=2)
    assert process.wait() == 2
    assert "initial states below 50" in process.events[-1]["reason"]


@pytest.mark.simulation
def test_liberos_arm_comes_to_rest_when_its_policy_is_killed(
    policy: Callable, start: Callable
) -> None:
    victim = policy("victim", "sine")
    parameters = {
        "policies": ["victim"],
        "camera_size": 32,
        "task_suite_name": "libero_object",
        "max_steps": LONG,
    }
    process = start("libero_bridge", parameters)
    process.wait_for_event("step")
    victim.popen.kill()
    assert process.wait() == 3, process.stderr
    error = process.events[-1]
    assert error["hold"]["at_rest"], error
    assert error["hold"]["duration_s"] < 5
