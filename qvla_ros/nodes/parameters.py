"""Node parameters from a table: name, default, meaning and range, declared and checked the same way
everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

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

_MAX_SECONDS = 3600.0


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter; its type is the default's. minimum, maximum: inclusive, of a number. choices:
    of a string.

    dynamic: may be set while the node runs; the others are fixed at the start. kind: the type where
    the default does not tell it, as an empty list does not.
    """

    name: str
    default: Any
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    dynamic: bool = False
    kind: Parameter.Type | None = None


def seconds(name: str, default: float, description: str, minimum: float = 0.0) -> ParameterSpec:
    """A duration in seconds."""
    return ParameterSpec(name, default, description, minimum, _MAX_SECONDS)


def kind_of(spec: ParameterSpec) -> Parameter.Type:
    """The type that is declared."""
    return spec.kind or Parameter.Type.from_parameter_value(spec.default)


def declare_parameters(node: Node, specs: Sequence[ParameterSpec]) -> dict[str, Any]:
    """Declare all, return name -> value.

    QvlaError on a value of the wrong type, out of range, not a choice or, for a `..._topic`, not a
    name; and on a name that is almost one of these: a limit that is misspelled would be none.
    (Other names may be another node's.)
    """
    names = [spec.name for spec in specs]
    for unknown in node._parameter_overrides.keys() - set(names):
        if likely := get_close_matches(unknown, names, 1, cutoff=0.85):
            raise QvlaError(
                "parameter", unknown, f"{likely[0]}, or a name less like it", "correct the spelling"
            )
    values: dict[str, Any] = {}
    for spec in specs:
        kind = kind_of(spec)
        # rclpy takes an empty list for bytes, so such a default is declared by its type and filled
        # in below.
        optional_list = spec.kind is not None and spec.default == []
        default = kind if optional_list else Parameter(spec.name, kind, spec.default).value
        try:
            node.declare_parameter(spec.name, default, _descriptor(spec, kind))
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            given = node._parameter_overrides.get(spec.name)
            found = repr(given.value) if given is not None else str(error)
            raise QvlaError(
                f"parameter {spec.name}", found, _expected(spec, kind), _fix(spec)
            ) from None
        # An empty list has no type in ROS: such a parameter stays without a value.
        values[spec.name] = node.get_parameter_or(spec.name).value
        if values[spec.name] is None and optional_list:
            values[spec.name] = []
        if values[spec.name] is None:
            raise QvlaError(f"parameter {spec.name}", "no value", _expected(spec, kind), _fix(spec))
        if spec.choices and values[spec.name] not in spec.choices:
            raise QvlaError(
                f"parameter {spec.name}", repr(values[spec.name]), _expected(spec, kind), _fix(spec)
            )
        if spec.name.endswith("_topic"):
            _require_a_topic(spec.name, values[spec.name])
    return values


def _require_a_topic(name: str, value: str) -> None:
    try:
        validate_topic_name(value)
    except InvalidTopicNameException as error:
        reason = str(error).splitlines()[0]
        raise QvlaError(
            f"parameter {name}", repr(value), f"a name ({reason})", f"-p {name}:=/arm/command"
        ) from None


def _descriptor(spec: ParameterSpec, kind: Parameter.Type) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        name=spec.name, type=kind.value, description=spec.description, read_only=not spec.dynamic
    )
    if spec.choices:
        descriptor.additional_constraints = "one of " + ", ".join(spec.choices)
    if spec.minimum is not None and spec.maximum is not None:
        if kind == Parameter.Type.INTEGER:
            limits = IntegerRange(from_value=int(spec.minimum), to_value=int(spec.maximum), step=0)
            descriptor.integer_range = [limits]
        else:
            limits = FloatingPointRange(
                from_value=float(spec.minimum), to_value=float(spec.maximum), step=0.0
            )
            descriptor.floating_point_range = [limits]
    return descriptor


def _expected(spec: ParameterSpec, kind: Parameter.Type) -> str:
    if spec.choices:
        return "one of " + ", ".join(spec.choices)
    span = "" if spec.minimum is None else f" from {spec.minimum:g} to {spec.maximum:g}"
    return kind.name.lower().replace("_", " ") + span + f" ({spec.description})"


def _fix(spec: ParameterSpec) -> str:
    return f"-p {spec.name}:=VALUE, or correct the parameter file"
