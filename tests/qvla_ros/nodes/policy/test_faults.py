"""Each fault is noticed within two ticks and answered by braking to rest, over real DDS.

Judged by the node's own clocks and ticks, not by when this process hears of it: the machine may be
loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rclpy
from rclpy.context import Context

from qvla_ros.testing.fault_cases import joint_faults, pose_faults, twist_faults
from qvla_ros.testing.fault_drill import DrillOutcome

EXPECTED_STOPS = {
    "camera silent": ("stale_input", "hold"),
    "image of the wrong size": ("bad_input", "hold"),
    "frozen pictures": ("bad_input", "hold"),
    "measured 0.5 m or rad away": ("bad_measurement", "hold"),
    "stamps 0.5 s ahead": ("stale_input", "hold"),
    "NaN in joint_states": ("bad_input", "hold"),
    "NaN from the engine": ("inference_error", "hold"),
    "engine raises": ("inference_error", "hold"),
    "late inference": ("late_inference", "hold"),
    "~/cancel": ("cancelled", "hold"),
    "~/arm false": ("disarmed", "hold"),
    "deactivate": ("deactivated", "hold"),
    "process stopped for 1.5 s (SIGSTOP)": ("stalled", "hold"),
    "robot killed (SIGKILL)": ("stale_input", "hold"),
    "SIGINT": ("shutdown", "hold"),
    "robot not ready": ("robot_not_ready", "zero twist"),
    "arm stands still": ("not_following", "zero twist"),
    "deadman released": ("deadman_lost", "zero twist"),
    "deadman silent": ("deadman_lost", "zero twist"),
    "clock jumps 10 s ahead": ("clock_jump", "zero twist"),
    "clock jumps 10 s back": ("clock_jump", "zero twist"),
    "policy killed (SIGKILL)": (
        "",
        "",
    ),  # nobody is left to say it; commands end, the robot's own timeout does the rest
}


@pytest.fixture
def context(ros_environment: dict[str, str]) -> Iterator[Context]:
    context = Context()
    rclpy.init(context=context, domain_id=int(ros_environment["ROS_DOMAIN_ID"]))
    yield context
    rclpy.try_shutdown(context=context)


@pytest.mark.parametrize(
    ("faults", "parameters"),
    [
        (pose_faults, {}),
        (twist_faults, {}),
        (joint_faults, {}),
        (joint_faults, {"output": "position_array"}),
        (twist_faults, {"executor": "events"}),
    ],
)
def test_every_fault_begins_to_brake_within_two_ticks_and_ends_at_rest(
    faults: Callable[..., Iterator[DrillOutcome]],
    parameters: dict[str, str],
    context: Context,
    ros_environment: dict,
    bundle_dir: Path,
    tmp_path: Path,
) -> None:
    outcomes = list(faults(context, bundle_dir, ros_environment, tmp_path, **parameters))
    print(*outcomes, sep="\n")
    for outcome in outcomes:
        stop = (outcome.stop_reason, outcome.command)
        assert stop == EXPECTED_STOPS[outcome.fault], outcome
        assert outcome.commands_after == 0, outcome
        assert outcome.delay_ticks <= 2, outcome
    assert len(outcomes) >= 5
