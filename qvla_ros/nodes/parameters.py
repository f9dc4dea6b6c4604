"""A node's parameters as ROS knows them: declared and checked from their table, then read once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.validate_topic_name import validate_topic_name

from qvla_ros.errors import QvlaError
from qvla_ros.nodes.start import arguments_of
from qvla_ros.parameters.bridge import BridgeParameters
from qvla_ros.parameters.check import check_value, wrong
from qvla_ros.parameters.given import read_arguments
from qvla_ros.parameters.misfits import misfits
from qvla_ros.parameters.policy import PolicyParameters
from qvla_ros.parameters.table import OPTIONS, ParameterSpec, from_values, specs

Table = TypeVar("Table")


def declare_parameters(
    node: Node, table: type[Table], cli_args: Sequence[str] | None = None
) -> Table:
    """Declares all parameters of a dataclass (qvla_ros.parameters.table) and returns their values.

    cli_args: those that the node was made with. QvlaError on a value of the wrong type, out of
    range, not a choice or, for a `..._topic`, not a name; and on one that is written for this node
    and not in force (qvla_ros.parameters.misfits): a limit that is misspelled would be none. Names
    in a section for many nodes that nothing here knows are warned of in the log.
    """
    declared = specs(table)
    written = read_arguments([*arguments_of(node.context), *(cli_args or ())])
    given = {name: _plain(each.value) for name, each in node._parameter_overrides.items()}
    known = {spec.name: given.get(spec.name, spec.default) for spec in declared}
    for warning in misfits(written, node.get_fully_qualified_name(), known, given, _names()):
        node.get_logger().warning(warning)
    values = {spec.name: _declare(node, spec) for spec in declared}
    return from_values(table, {**values, "use_sim_time": node.get_parameter("use_sim_time").value})


def _names() -> set[str]:
    """The parameters of all nodes of this package, which may share the section of a file."""
    return {spec.name for table in (PolicyParameters, BridgeParameters) for spec in specs(table)}


def _declare(node: Node, spec: ParameterSpec) -> Any:
    if spec.kind == OPTIONS:
        return _declare_options(node, spec)
    if spec.name in node._parameter_overrides:
        value = _plain(node._parameter_overrides[spec.name].value)
        if value is None and not spec.is_array:
            raise wrong(spec, "no value")
        # An empty list has no type in ROS: such a parameter stays without a value.
        check_value(spec, [] if value is None else value)
    kind = Parameter.Type[spec.kind.upper()]
    # rclpy takes an empty list for bytes, so such a default is declared by its type.
    default = kind if spec.default == [] else Parameter(spec.name, kind, spec.default).value
    node.declare_parameter(spec.name, default, _descriptor(spec, kind))
    value = _plain(node.get_parameter_or(spec.name).value)
    if value is None:
        return []
    if spec.name.endswith("_topic") and value != spec.default:
        _require_a_topic(spec.name, value)
    return value


def _plain(value: Any) -> Any:
    """A list in place of rclpy's arrays."""
    return value if isinstance(value, (str, bool, int, float, type(None))) else list(value)


def _declare_options(node: Node, spec: ParameterSpec) -> dict[str, Any]:
    """Options are a parameter each, `SPEC.NAME`, of any type: those that were given."""
    if spec.name in node._parameter_overrides:
        found = repr(node._parameter_overrides[spec.name].value)
        fix = f"-p {spec.name}.NAME:=VALUE, such as -p {spec.name}.threads:=2"
        raise QvlaError(f"parameter {spec.name}", found, "a parameter for each option", fix)
    options = {}
    for name, given in sorted(node._parameter_overrides.items()):
        if name.startswith(f"{spec.name}."):
            descriptor = ParameterDescriptor(
                name=name, description=spec.description, read_only=True
            )
            node.declare_parameter(name, given.value, descriptor)
            options[name.removeprefix(f"{spec.name}.")] = _plain(given.value)
    return options


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
