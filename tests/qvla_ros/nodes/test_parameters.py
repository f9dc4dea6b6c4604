"""Parameters of a table are declared with their types; unfit values are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import rclpy

from qvla_ros.errors import QvlaError
from qvla_ros.nodes.parameters import declare_parameters
from qvla_ros.parameters.table import parameter, seconds


@dataclass(frozen=True)
class Limits:
    limits: tuple[float, ...] = parameter((), "one number an axis")


@dataclass(frozen=True)
class Timeout:
    timeout_s: float = seconds(1.0, "patience", minimum=1e-3)


@dataclass(frozen=True)
class Output:
    output_topic: str = parameter("~/command", "where commands go")


@pytest.fixture
def declare(ros_environment: dict[str, str]) -> Iterator[Callable[..., Any]]:
    """declare(table, "name:=value") -> the table in a node that was started so."""
    context = rclpy.Context()

    def run(table: type, *given: str) -> Any:
        arguments = ["--ros-args", *(word for each in given for word in ("-p", each))]
        rclpy.init(args=arguments, context=context, domain_id=int(ros_environment["ROS_DOMAIN_ID"]))
        node = rclpy.create_node("node", context=context)
        try:
            return declare_parameters(node, table)
        finally:
            node.destroy_node()

    yield run
    context.try_shutdown()


@pytest.mark.parametrize(
    ("given", "value"), [([], []), (["limits:=[]"], []), (["limits:=[0.5, 1.0]"], [0.5, 1.0])]
)
def test_a_list_with_a_type_may_be_left_out_be_empty_or_be_given(
    declare: Callable, given: list, value: list
) -> None:
    assert list(declare(Limits, *given).limits) == value


@pytest.mark.parametrize("given", ["limits:=[a, b]", "limits:=0.5"])
def test_a_list_of_another_type_is_refused_with_its_meaning(declare: Callable, given: str) -> None:
    with pytest.raises(
        QvlaError, match=r"parameter limits: .*expected double array \(one number an axis\)"
    ):
        declare(Limits, given)


def test_a_number_out_of_range_is_refused_with_the_range(declare: Callable) -> None:
    with pytest.raises(
        QvlaError, match=r"parameter timeout_s: got 0.0; expected double from 0.001 to 3600"
    ):
        declare(Timeout, "timeout_s:=0.0")


@pytest.mark.parametrize("given", ["timeot_s", "timeout_sec", "limit_timeout_s"])
def test_a_name_that_is_almost_a_parameter_is_refused(declare: Callable, given: str) -> None:
    if given == "limit_timeout_s":  # another node's, as files for several nodes hold them
        assert declare(Timeout, f"{given}:=0.5").timeout_s == 1.0
        return
    expected = "expected a known parameter; did you mean timeout_s"
    with pytest.raises(QvlaError, match=f"parameter: got {given}; {expected}"):
        declare(Timeout, f"{given}:=0.5")


@pytest.mark.parametrize("given", ["not a name", "/ends/with/", "1st"])
def test_a_topic_that_is_no_name_is_refused(declare: Callable, given: str) -> None:
    with pytest.raises(QvlaError, match="parameter output_topic"):
        declare(Output, f"output_topic:='{given}'")


def test_an_unknown_name_is_warned_of_by_name_and_those_of_ros_are_not(
    declare: Callable, capfd: pytest.CaptureFixture[str]
) -> None:
    ros_own = ["use_sim_time:=true", "qos_overrides./chatter.publisher.depth:=5"]
    declare(Timeout, *ros_own, "max_input_age_s:=0.1")
    logged = capfd.readouterr().err
    assert "parameter max_input_age_s has no effect" in logged
    assert logged.count("has no effect") == 1
