"""The policy node as a robot meets it: another process, reached by topics and services only."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from qvla.msg import PolicyStatus

from qvla_ros.bundle import Manifest, load_bundle, save_bundle
from qvla_ros.evaluation.shared_memory import mapped_by, orphans
from qvla_ros.nodes.policy.main import main

if TYPE_CHECKING:
    from conftest import Robot

# what the robot reports: the tiny graph copies it
EXPECTED_ACTION = [
    0.1,
    -0.2,
    0.3,
    0.0,
    0.0,
    0.0,
    0.75,
]


@pytest.fixture
def policy(start: Callable, bundle_dir: Path) -> Callable:
    """policy(**parameters) starts a policy node in /x with the tiny bundle."""
    return lambda **parameters: start("policy", {"bundle": str(bundle_dir), **parameters}, "x")


def test_an_observation_is_answered_by_a_chunk_of_the_same_stamp(
    policy: Callable, robot: Robot, bundle_dir: Path
) -> None:
    policy(**{"engine_options.threads": 1})
    robot.wait_until_active()
    robot.tell("pick up the milk")
    chunk = robot.ask()
    bundle = load_bundle(bundle_dir)
    assert chunk.bundle_id == bundle.bundle_id
    assert chunk.instruction == "pick up the milk"
    assert (chunk.kind, tuple(chunk.names), tuple(chunk.units)) == (
        bundle.actions.kind,
        bundle.actions.names,
        bundle.actions.units,
    )
    assert (chunk.horizon, chunk.step_dt, chunk.header.frame_id) == (4, 0.05, "world")
    np.testing.assert_allclose(
        np.reshape(chunk.data, (4, 7)), np.tile(EXPECTED_ACTION, (4, 1)), atol=1e-6
    )
    assert chunk.latency_names == [
        "receive",
        "wait",
        "preprocess",
        "inference",
        "postprocess",
        "total",
    ]
    assert all(value >= 0 for value in chunk.latency_ms)
    running = robot.wait(
        lambda: [s for s in robot.statuses if s.state == PolicyStatus.RUNNING], "RUNNING"
    )[-1]
    assert running.reason == ""
    assert running.engine.startswith("onnxruntime")


def test_chunks_are_disarmed_until_armed_and_again_after_deactivation(
    policy: Callable, robot: Robot
) -> None:
    policy(backend="zero")
    robot.wait_until_active()
    robot.tell("pick up the milk")
    assert not robot.ask().armed
    assert robot.arm(True).success
    assert robot.ask().armed
    assert robot.change_state(Transition.TRANSITION_DEACTIVATE)
    refused = robot.arm(True)
    assert not refused.success
    assert "not active" in refused.message
    assert robot.change_state(Transition.TRANSITION_ACTIVATE)
    robot.wait_until_active()
    assert not robot.ask().armed


def test_nothing_is_published_while_inactive(policy: Callable, robot: Robot) -> None:
    policy(backend="zero")
    robot.wait_until_active()
    robot.tell("pick up the milk")
    robot.ask()
    assert robot.change_state(Transition.TRANSITION_DEACTIVATE)
    robot.wait_for_reason("not active")
    robot.chunks.clear()
    for _ in range(20):
        robot.publish()
        robot.spin()
    assert robot.chunks == []


def test_a_wrong_encoding_is_refused_by_name_and_mended_by_the_right_one(
    policy: Callable, robot: Robot
) -> None:
    policy(backend="zero")
    robot.wait_until_active()
    robot.tell("pick up the milk")
    words = ("/x/camera/agentview/image_raw", "'32FC1'", "rgb8", "Fix:")
    status = robot.publish_until_reason(*words, encoding="32FC1")
    assert status.state == PolicyStatus.WAITING
    assert robot.chunks == []
    assert robot.ask().horizon == 4


def test_without_an_instruction_it_waits_and_says_for_what(policy: Callable, robot: Robot) -> None:
    policy(backend="zero")
    robot.wait_until_active()
    status = robot.publish_until_reason(
        "no instruction received yet on /x/instruction", "transient local"
    )
    assert status.state == PolicyStatus.WAITING
    assert robot.chunks == []
    robot.tell("pick up the milk")
    assert robot.ask().instruction == "pick up the milk"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"joints": ("finger_joint1",)},
            ("/x/joint_states", "['finger_joint1']", "also finger_joint2"),
        ),
        (
            {"frame": "base"},
            ("frame_id on /x/ee_pose", "'base'", "'world'", "Fix: transform the pose"),
        ),
        ({"frame": ""}, ("frame_id on /x/ee_pose: got ''", "'world'", "name that frame")),
        ({"cameras": 1}, ("nothing received yet on /x/camera/wrist/image_raw",)),
    ],
)
def test_an_incomplete_robot_gets_a_reason_and_no_chunk(
    policy: Callable, robot: Robot, options: dict, words: tuple
) -> None:
    policy(backend="zero")
    robot.wait_until_active()
    robot.tell("pick up the milk")
    assert robot.publish_until_reason(*words, **options).state == PolicyStatus.WAITING
    assert robot.chunks == []


def test_simulated_time_without_a_clock_is_pointed_out(policy: Callable, robot: Robot) -> None:
    policy(backend="zero", use_sim_time=True)
    robot.wait_until_active()
    robot.tell("pick up the milk")
    robot.publish_until_reason("in the future", "check use_sim_time")
    assert robot.chunks == []


def test_large_images_arrive_with_the_projects_dds_profile(
    start: Callable, make_bundle: Callable, manifest: Manifest, robot: Robot, tmp_path: Path
) -> None:
    # 640x480: without the profile some 5 % of such best-effort images arrive, so hardly ever both
    # of an observation.
    tiny = make_bundle(tmp_path / "tiny")
    cameras = tuple(replace(camera, height=480, width=640) for camera in manifest.cameras)
    files = {name: tiny / name for name in load_bundle(tiny).files}
    save_bundle(tmp_path / "vga", replace(manifest, cameras=cameras), files)
    start("policy", {"bundle": str(tmp_path / "vga"), "backend": "zero"}, "x")
    robot.wait_until_active()
    robot.tell("pick up the milk")
    robot.ask(size=(480, 640))
    stamps = []
    for _ in range(20):
        stamps.append(robot.publish(size=(480, 640)))
        end = time.monotonic() + 0.2
        while robot.chunks[-1].header.stamp != stamps[-1] and time.monotonic() < end:
            robot.spin()
    answered = [
        stamp for stamp in stamps if any(chunk.header.stamp == stamp for chunk in robot.chunks)
    ]
    assert len(answered) >= 10


def test_a_failing_engine_is_a_fault_that_disarms_until_reactivated(
    policy: Callable, robot: Robot, tmp_path: Path
) -> None:
    np.save(tmp_path / "one.npy", np.zeros((1, 4, 7)))
    policy(backend="replay", **{"engine_options.path": str(tmp_path / "one.npy")})
    robot.wait_until_active()
    robot.tell("pick up the milk")
    robot.arm(True)
    robot.ask()

    def faulty() -> list[PolicyStatus]:
        robot.publish()
        return [status for status in robot.statuses if status.state == PolicyStatus.FAULT]

    status = robot.wait(faulty, "FAULT")[0]
    assert "replay: got chunk 2" in status.reason
    assert not status.armed
    assert not robot.arm(True).success


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_cleanly(policy: Callable, robot: Robot, number: int) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which these tests may have been started without
    process = policy(backend="zero")
    robot.wait_until_active()
    robot.tell("pick up the milk")
    robot.ask()
    segments = mapped_by(process.popen.pid)
    process.popen.send_signal(number)
    assert process.wait() == 0
    assert not segments & set(orphans())
    assert "Traceback" not in process.stderr
    robot.wait_for_reason("not active")


def test_a_corrupt_bundle_ends_the_start_with_exit_code_2(
    start: Callable, make_bundle: Callable, tmp_path: Path
) -> None:
    directory = make_bundle(tmp_path / "bundle")
    graph = bytearray((directory / "policy.onnx").read_bytes())
    graph[len(graph) // 2] ^= 1
    (directory / "policy.onnx").write_bytes(graph)
    process = start("policy", {"bundle": str(directory)}, "x")
    assert process.wait() == 2
    assert "policy.onnx: got SHA-256" in process.stderr
    assert "Fix: copy the bundle again" in process.stderr
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("bundle:=''", "parameter bundle"),
        ("bundle", "-p bundle: got what ROS cannot read"),
        ("backend:=torch", "expected one of onnxruntime, tensorrt"),
        ("max_image_age_s:=-1.0", "parameter max_image_age_s: got -1.0"),
        ("max_image_age_s:=soon", "parameter max_image_age_s: got 'soon'"),
        ("engine_options:=threads=2", "a parameter for each option"),
    ],
)
def test_a_wrong_parameter_ends_the_start_with_exit_code_2(
    ros_environment: dict,
    bundle_dir: Path,
    capfd: pytest.CaptureFixture[str],
    parameter: str,
    message: str,
) -> None:
    assert main(["--ros-args", "-p", f"bundle:={bundle_dir}", "-p", parameter]) == 2
    assert message in capfd.readouterr().err


def test_without_autostart_a_bad_bundle_leaves_a_node_that_can_be_asked_again(
    start: Callable, robot: Robot, tmp_path: Path
) -> None:
    process = start("policy", {"bundle": str(tmp_path / "absent"), "autostart": False}, "x")
    for _ in range(2):
        robot.configure_in_vain()
    assert process.popen.poll() is None
    assert "absent; expected a directory" in process.stderr


def test_two_nodes_of_one_name_say_so(policy: Callable, robot: Robot) -> None:
    both = (policy(), policy())
    robot.wait(
        lambda: all("another node is called /x/policy" in each.stderr for each in both), "a word"
    )
    assert all("-r __node:=ANOTHER" in each.stderr for each in both)
