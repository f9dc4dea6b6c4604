"""The doctor's findings about a machine follow from its facts, each with its fix."""

from __future__ import annotations

import os
import re
from dataclasses import replace

import pytest

from qvla_ros.bundle import load_bundle
from qvla_ros.doctor.environment import Machine, read_machine
from qvla_ros.doctor.machine_checks import (
    SharedMemoryTransport,
    machine_findings,
    shared_memory_transport,
)
from qvla_ros.errors import QvlaError
from qvla_ros.evaluation.shared_memory import Port
from qvla_ros.resources import share_path
from qvla_ros.ros_environment import profile_variable

PROFILE = share_path("config/fastdds.xml").read_text(encoding="utf-8")


def worst(machine: Machine, bundle=None) -> dict[str, tuple[str, str]]:
    """about -> (status, text and fix) of what is not ok."""
    found = list(machine_findings(machine, bundle))
    assert all(bool(finding.fix) == (finding.status != "ok") for finding in found)
    return {f.about: (f.status, f"{f.text}; {f.fix}") for f in found if f.status != "ok"}


def test_a_good_machine_has_nothing_to_mend(good_machine, bundle_dir):
    assert worst(good_machine) == worst(good_machine, load_bundle(bundle_dir)) == {}


@pytest.mark.parametrize(
    ("change", "about", "status", "words"),
    [
        ({"python": (3, 9, 2)}, "Python", "problem", "3.10, 3.11 or 3.12"),
        ({"python": (3, 13, 0)}, "Python", "problem", "3.13.0"),
        ({"ros_distro": None, "rclpy": None}, "ROS 2", "problem", "source /opt/ros"),
        ({"onnxruntime": None}, "ONNX Runtime", "warning", "pip install onnxruntime"),
        ({"profile": None, "profile_text": None}, "Fast DDS profile", "warning", "900 KiB"),
        ({"profile_text": None}, "Fast DDS profile", "problem", "cannot be read"),
        (
            {"profile_text": "<dds>"},
            "Fast DDS profile",
            "problem",
            "no element|mismatched|unclosed",
        ),
        ({"profile_text": "<dds/>"}, "Fast DDS profile", "warning", "no shared memory transport"),
        (
            {"profile_text": PROFILE.replace("4194304", "600000")},
            "Fast DDS profile",
            "warning",
            "maxMessageSize 585",
        ),
        (
            {"profile_text": PROFILE.replace("16777216", "600000")},
            "Fast DDS profile",
            "warning",
            "segment 585 KiB",
        ),
        ({"shared_memory_bytes": (64 << 20, 60 << 20)}, "/dev/shm", "problem", "--shm-size"),
        ({"shared_memory_bytes": None}, "/dev/shm", "warning", "not there"),
        ({"may_be_real_time": False}, "real time", "warning", "priority 40.*rtprio 40.*ulimit"),
        ({"onnxruntime": "1.17.3"}, "ONNX Runtime", "problem", "1.17.3; .*'onnxruntime>=1.19'"),
        ({"ports": (Port(0, "root", True),)}, "users", "problem", "root runs.*; this is|--user"),
        (
            {"errors": (QvlaError("ROS_DOMAIN_ID", "'abc'", "a number", "export it"),)},
            "environment",
            "problem",
            "'abc'.*export it",
        ),
        ({"orphans": 3}, "/dev/shm", "warning", "3 segments.*--remove_orphans"),
    ],
)
def test_each_fault_is_reported_with_its_fix(good_machine, change, about, status, words):
    found = worst(replace(good_machine, **change))
    assert found.keys() == {about}
    assert found[about][0] == status
    assert re.search(words, found[about][1]), found[about][1]


@pytest.mark.parametrize(
    ("distro", "variable"), [("jazzy", "FASTRTPS"), ("kilted", "FASTDDS"), (None, "FASTDDS")]
)
def test_the_profile_is_read_from_the_variable_of_the_distributions_fast_dds(
    monkeypatch, tmp_path, distro, variable
):
    for name in ("FASTRTPS", "FASTDDS"):
        path = tmp_path / f"{name}.xml"
        path.write_text(name)
        monkeypatch.setenv(f"{name}_DEFAULT_PROFILES_FILE", str(path))
    assert profile_variable(distro) == f"{variable}_DEFAULT_PROFILES_FILE"
    if distro is not None:
        monkeypatch.setenv("ROS_DISTRO", distro)
        assert read_machine().profile_text == variable


def test_small_images_need_no_profile_and_other_middleware_none_either(good_machine, bundle_dir):
    without = replace(good_machine, profile=None, profile_text=None)
    assert worst(without, load_bundle(bundle_dir)) == {}
    assert worst(replace(without, rmw="rmw_cyclonedds_cpp")) == {}


def test_a_profile_that_is_too_small_for_the_bundles_images_is_a_problem(good_machine, bundle_dir):
    bundle = load_bundle(bundle_dir)
    large = replace(bundle, cameras=(replace(bundle.cameras[0], height=480, width=640),))
    assert worst(replace(good_machine, profile=None), large)["Fast DDS profile"][0] == "problem"


def test_the_profile_of_this_package_is_understood():
    assert shared_memory_transport(PROFILE) == SharedMemoryTransport(16 << 20, 4 << 20)


def test_this_machine_can_be_read():
    assert [finding.about for finding in machine_findings(read_machine(), None)][:2] == [
        "Python",
        "ROS 2",
    ]


def test_another_users_nodes_elsewhere_or_over_another_middleware_are_no_trouble(good_machine):
    root = Port(0, "root", is_alive=True)
    dead = replace(root, is_alive=False)
    for port in (dead, replace(root, domain=1), replace(root, user="robot")):
        assert worst(replace(good_machine, ports=(port,))) == {}
    assert worst(replace(good_machine, ports=(root,), rmw="rmw_cyclonedds_cpp")) == {}


def test_either_user_is_told_of_the_other(good_machine):
    both = (Port(0, "root", True), Port(0, "robot", True))
    for user, other in (("root", "robot"), ("robot", "root")):
        text = worst(replace(good_machine, ports=both, user=user))["users"][1]
        assert text.startswith(f"{other} runs nodes in domain 0 of this machine, this is {user}")


def test_variables_of_ros_and_the_simulator_are_read(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "environ", {"ROS_LOG_DIR": str(tmp_path)})
    assert read_machine().errors == ()
    monkeypatch.setenv("ROS_DOMAIN_ID", "abc")
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "first")
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", "/none.xml")  # a finding of its own
    assert [e.key for e in read_machine().errors] == ["ROS_DOMAIN_ID", "MUJOCO_EGL_DEVICE_ID"]
