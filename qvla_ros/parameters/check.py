"""Checks a parameter's value against its table entry, as ROS and the node do."""

from __future__ import annotations

from typing import Any

from qvla_ros.errors import QvlaError
from qvla_ros.parameters.table import OPTIONS, ParameterSpec

_TYPES = {"bool": bool, "integer": int, "double": float, "string": str}


def check_value(spec: ParameterSpec, value: Any) -> None:
    """QvlaError unless `value` is of the type, in the range and one of the choices of `spec`.

    A whole number is no decimal one; a list may be empty. NaN is in no range.
    """
    if spec.kind == OPTIONS:
        return
    kind = _TYPES[spec.kind.removesuffix("_array")]
    is_list = isinstance(value, (list, tuple))
    items = list(value) if is_list else [value]
    if is_list != spec.is_array or not all(type(item) is kind for item in items):
        raise wrong(spec, repr(value), _decimal(spec, value))
    if spec.choices and value not in spec.choices:
        raise wrong(spec, repr(value))
    low = float("-inf") if spec.minimum is None else spec.minimum
    high = float("inf") if spec.maximum is None else spec.maximum
    if kind in (int, float) and not all(low <= item <= high for item in items):
        raise wrong(spec, repr(value))


def wrong(spec: ParameterSpec, found: str, fix: str = "") -> QvlaError:
    """The error of a value that does not fit."""
    fix = fix or f"-p {spec.name}:=VALUE, or correct the parameter file"
    if spec.choices:
        expected = "one of " + ", ".join(spec.choices)
    else:
        span = "" if spec.minimum is None else f" from {spec.minimum:g} to {spec.maximum:g}"
        expected = spec.kind.replace("_", " ") + span + f" ({spec.description})"
    return QvlaError(f"parameter {spec.name}", found, expected, fix)


def _decimal(spec: ParameterSpec, value: Any) -> str:
    """How whole numbers are written where ROS wants decimal ones; empty if that is no help."""
    is_list = isinstance(value, (list, tuple))
    numbers = list(value) if is_list else [value]
    is_whole = all(type(number) in (int, float) for number in numbers)
    if not is_whole or not spec.kind.startswith("double") or spec.is_array != is_list:
        return ""
    texts = [str(float(number)) for number in numbers]
    return f"write [{', '.join(texts)}]" if is_list else f"write {texts[0]}"
