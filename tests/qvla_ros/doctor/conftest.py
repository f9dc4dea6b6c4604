"""A machine as it should be, as facts."""

from __future__ import annotations

import pytest

from qvla_ros.doctor.environment import Machine
from qvla_ros.resources import share_path


@pytest.fixture
def good_machine() -> Machine:
    """A Jetson with everything that a policy needs."""
    return Machine(
        python=(3, 12, 3),
        machine="aarch64",
        ros_distro="jazzy",
        rclpy="7.1.6",
        rmw="rmw_fastrtps_cpp",
        domain="0",
        discovery="SUBNET",
        onnxruntime="1.32.0",
        providers=("CPUExecutionProvider",),
        tensorrt={"tensorrt": "10.3.0"},
        compute_capability="87",
        gpu_error="",
        profile="/opt/fastdds.xml",
        profile_text=share_path("config/fastdds.xml").read_text(encoding="utf-8"),
        shared_memory_bytes=(1 << 30, 1 << 29),
        orphans=0,
        may_be_real_time=True,
        user="robot",
    )
