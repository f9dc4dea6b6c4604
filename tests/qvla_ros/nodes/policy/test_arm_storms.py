"""Whatever waits in a stalled node, a stop that was called last leaves it disarmed."""

from __future__ import annotations

from pathlib import Path

import pytest
import rclpy

from qvla_ros.parameters.policy import EXECUTORS
from qvla_ros.testing.arm_storm import storm_bench

STORMS = 12


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_stop_that_was_called_last_wins_in_every_storm(
    ros_environment: dict[str, str], bundle_dir: Path, executor: str
) -> None:
    rclpy.init(domain_id=int(ros_environment["ROS_DOMAIN_ID"]))
    context = rclpy.get_default_context()
    try:
        with storm_bench(context, bundle_dir, executor) as bench:
            assert bench.arm()
            assert not any(bench.storm(seed)[0] for seed in range(STORMS))
            assert bench.arm()
    finally:
        rclpy.try_shutdown()
