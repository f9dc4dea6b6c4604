"""What is known of each kind of command without ROS."""

from __future__ import annotations

import pytest

from qvla_ros.control.outputs import OUTPUTS, Output, fitting, output_names, register_output
from qvla_ros.errors import QvlaError


@pytest.mark.parametrize("name", ["joint_trajectory", "pose", "position_array"])
def test_positions_can_be_held_and_deltas_go_from_the_last_one_sent(name: str) -> None:
    assert OUTPUTS[name].stop_actions == ("hold", "none")
    assert not OUTPUTS[name].follows_measured


def test_velocities_have_a_zero_and_deltas_go_from_where_the_robot_is() -> None:
    assert OUTPUTS["twist"].stop_actions == ("zero", "none")
    assert OUTPUTS["twist"].follows_measured


def test_outputs_are_chosen_by_what_they_move() -> None:
    assert {output.name for output in fitting("joints")} == {"joint_trajectory", "position_array"}
    assert {output.name for output in fitting("pose")} == {"twist", "pose"}


def test_a_new_output_is_offered_and_a_name_that_is_taken_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    new = Output("wave", "joints", "positions", "std_msgs/msg/String", "somewhere")
    monkeypatch.setitem(OUTPUTS, "wave", new)
    del OUTPUTS["wave"]
    register_output(new)
    assert output_names()[-1] == "wave"
    for name in ("wave", "pose", "none"):
        taken = Output(name, "joints", "positions", "std_msgs/msg/String", "somewhere")
        with pytest.raises(QvlaError, match="^output name"):
            register_output(taken)
