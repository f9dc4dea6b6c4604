"""Parameters of a table are declared with their types; unfit values are refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import rclpy

from qvla_ros.errors import QvlaError
from qvla_ros.nodes.parameters import declare_parameters
from qvla_ros.nodes.start import start_ros
from qvla_ros.parameters.table import options, parameter, seconds


@dataclass(frozen=True)
class Limits:
    limits: tuple[float, ...] = parameter((), "one number an axis")


@dataclass(frozen=True)
class Timeout:
    timeout_s: float = seconds(1.0, "patience", minimum=1e-3)


@dataclass(frozen=True)
class Output:
    output_topic: str = parameter("~/command", "where commands go")


@dataclass(frozen=True)
class Model:
    engine_options: dict[str, object] = options("of the backend")


@pytest.fixture
def declare(ros_environment: dict[str, str]) -> Callable[..., Any]:
    """declare(table, "name:=value", file=...) -> the table in a node that was started so."""

    def run(table: type, *given: str, file: Path | None = None) -> Any:
        context = rclpy.Context()
        arguments = ["--ros-args", *(word for each in given for word in ("-p", each))]
        if file is not None:
            arguments += ["--params-file", str(file)]
        start_ros(arguments, context)
        node = rclpy.create_node("node", context=context)
        try:
            return declare_parameters(node, table)
        finally:
            node.destroy_node()
            context.try_shutdown()

    return run


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


@pytest.mark.parametrize(
    ("given", "fix"),
    [
        ("timeout_s:=2", "write 2.0"),
        ("limits:=[0, -1]", "write [0.0, -1.0]"),
        ("limits:=1", "-p limits:=VALUE"),
    ],
)
def test_whole_numbers_for_decimal_ones_are_refused_with_how_to_write_them(
    declare: Callable, given: str, fix: str
) -> None:
    table = Timeout if given.startswith("timeout") else Limits
    with pytest.raises(QvlaError, match=re.escape(f"Fix: {fix}")):
        declare(table, given)
    if fix.startswith("write"):
        declare(table, given.partition(":=")[0] + ":=" + fix.removeprefix("write "))


@pytest.mark.parametrize("given", ["timeot_s", "timeout_sec", "limit_timeout_s"])
def test_a_name_that_is_no_parameter_is_refused(declare: Callable, given: str) -> None:
    with pytest.raises(QvlaError, match=f"-p {given}:=0.5: parameter: got {given}; expected a "):
        declare(Timeout, f"{given}:=0.5")


def test_options_are_a_parameter_each_of_any_type(declare: Callable) -> None:
    words = ("engine_options.threads:=2", "engine_options.path:='7'", "engine_options.a:=[1.0]")
    assert declare(Model).engine_options == {}
    found = declare(Model, *words).engine_options
    assert {**found, "a": list(found["a"])} == {"threads": 2, "path": "7", "a": [1.0]}


@pytest.mark.parametrize("given", ["'{\"threads\": 2}'", "2"])
def test_options_in_one_text_are_refused_with_how_they_are_given(
    declare: Callable, given: str
) -> None:
    with pytest.raises(QvlaError, match=r"Fix: .* such as -p engine_options.threads:=2") as refused:
        declare(Model, f"engine_options:={given}")
    rule = refused.value.fix.rpartition("-p ")[2]
    assert declare(Model, rule).engine_options == {"threads": 2}


@pytest.mark.parametrize("given", ["not a name", "/ends/with/", "1st"])
def test_a_topic_that_is_no_name_is_refused(declare: Callable, given: str) -> None:
    with pytest.raises(QvlaError, match="parameter output_topic"):
        declare(Output, f"output_topic:='{given}'")


def test_an_unknown_name_for_many_nodes_is_warned_of_and_those_of_ros_are_not(
    declare: Callable, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ros_own = ["use_sim_time:=true", "qos_overrides./chatter.publisher.depth:=5"]
    path = tmp_path / "many.yaml"
    path.write_text("/**:\n  ros__parameters:\n    max_input_age_s: 0.1\n")
    declare(Timeout, *ros_own, file=path)
    logged = capfd.readouterr().err
    assert "parameter max_input_age_s has no effect" in logged
    assert logged.count("has no effect") == 1


def test_a_file_for_another_node_is_refused_with_the_value_in_force(
    declare: Callable, tmp_path: Path
) -> None:
    path = tmp_path / "node.yaml"
    path.write_text("/arm/node:\n  ros__parameters:\n    timeout_s: 0.5\n")
    with pytest.raises(
        QvlaError, match=r"line 3: .* = 0.5, not in force: /node has 1.0"
    ) as refused:
        declare(Timeout, file=path)
    path.write_text(path.read_text().replace("/arm/node:", refused.value.fix.split("`")[1]))
    assert declare(Timeout, file=path).timeout_s == 0.5
