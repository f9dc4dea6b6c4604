"""A node's parameters as ROS knows them: declared and checked from their table, then read once."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    InvalidTopicNameException,
)
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.validate_topic_name import validate_topic_name

from qvla_ros.errors import QvlaError
from qvla_ros.parameters.table import ParameterSpec, from_values, specs

Table = TypeVar("Table")


def declare_parameters(node: Node, table: type[Table]) -> Table:
    """Declares all parameters of a dataclass (qvla_ros.parameters.table) and returns their values.

    QvlaError on a value of the wrong type, out of range, not a choice or, for a `..._topic`, not a
    name; and on a name that is almost one of these: a limit that is misspelled would be none. Other
    unknown names are warned of in the log.
    """
    declared = specs(table)
    _check_names(node, [spec.name for spec in declared])
    values = {spec.name: _declare(node, spec) for spec in declared}
    return from_values(table, {**values, "use_sim_time": node.get_parameter("use_sim_time").value})


def _check_names(node: Node, names: Sequence[str]) -> None:
    """Refuses misspelled names among the given parameters, and warns of other unknown ones."""
    for unknown in sorted(node._parameter_overrides.keys() - set(names)):
        # ROS's own: rclpy declares some itself, such as use_sim_time, and the others per topic.
        if node.has_parameter(unknown) or unknown.startswith("qos_overrides."):
            continue
        if likely := get_close_matches(unknown, names, 1, cutoff=0.85):
            expected = f"a known parameter; did you mean {likely[0]}?"
            raise QvlaError("parameter", unknown, expected, "correct the spelling")
        # No error: a file with `/**` may hold the parameters of several nodes.
        node.get_logger().warning(
            f"parameter {unknown} has no effect: this node does not know it; "
            "`qvla parameters` lists those that it knows"
        )


def _declare(node: Node, spec: ParameterSpec) -> Any:
    kind = Parameter.Type[spec.kind.upper()]
    # rclpy takes an empty list for bytes, so such a default is declared by its type and filled in
    # below.
    is_empty = spec.default == []
    default = kind if is_empty else Parameter(spec.name, kind, spec.default).value
    try:
        node.declare_parameter(spec.name, default, _descriptor(spec, kind))
    except (InvalidParameterTypeException, InvalidParameterValueException) as error:
        given = node._parameter_overrides.get(spec.name)
        raise _wrong(spec, repr(given.value) if given is not None else str(error)) from None
    # An empty list has no type in ROS: such a parameter stays without a value.
    value = node.get_parameter_or(spec.name).value
    if value is None and is_empty:
        value = []
    if value is None:
        raise _wrong(spec, "no value")
    if spec.choices and value not in spec.choices:
        raise _wrong(spec, repr(value))
    if spec.name.endswith("_topic"):
        _require_a_topic(spec.name, value)
    return value


def _require_a_topic(name: str, value: str) -> None:
    try:
        validate_topic_name(value)
    except InvalidTopicNameException as error:
        expected = f"a name ({str(error).splitlines()[0]})"
        fix = f"-p {name}:=/arm/command"
        raise QvlaError(f"parameter {name}", repr(value), expected, fix) from None


def _descriptor(spec: ParameterSpec, kind: Parameter.Type) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        name=spec.name, type=kind.value, description=spec.description, read_only=not spec.dynamic
    )
    if spec.choices:
        descriptor.additional_constraints = "one of " + ", ".join(spec.choices)
    if spec.minimum is not None and spec.maximum is not None:
        low = spec.minimum
        high = spec.maximum
        if kind == Parameter.Type.INTEGER:
            limits = IntegerRange(from_value=int(low), to_value=int(high), step=0)
            descriptor.integer_range = [limits]
        else:
            limits = FloatingPointRange(from_value=float(low), to_value=float(high), step=0.0)
            descriptor.floating_point_range = [limits]
    return descriptor


def _wrong(spec: ParameterSpec, found: str) -> QvlaError:
    fix = f"-p {spec.name}:=VALUE, or correct the parameter file"
    if spec.choices:
        expected = "one of " + ", ".join(spec.choices)
    else:
        span = "" if spec.minimum is None else f" from {spec.minimum:g} to {spec.maximum:g}"
        expected = spec.kind.replace("_", " ") + span + f" ({spec.description})"
    return QvlaError(f"parameter {spec.name}", found, expected, fix)
