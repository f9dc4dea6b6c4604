"""A node's parameters are the fields of a frozen dataclass: this makes such fields and reads them.

    @dataclass(frozen=True)
    class Limits:
        max_speed_m_s: float = parameter(0.25, "speed of the end effector", 0.0, 2.0)
        joints: tuple[str, ...] = parameter((), "in the order of the actions")

A field without `parameter` that is a dataclass is a group; any other field is not ROS's to set.
Nothing here knows of ROS: `qvla_ros.nodes.parameters` declares what is read here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

_KEY = "parameter"
OPTIONS = "options"  # the kind of a field that is any number of parameters: NAME.option
_MAX_SECONDS = 3600.0
_KINDS: Mapping[Any, str] = {
    bool: "bool",
    int: "integer",
    float: "double",
    str: "string",
    tuple[int, ...]: "integer_array",
    tuple[float, ...]: "double_array",
    tuple[str, ...]: "string_array",
    dict[str, object]: OPTIONS,
}
Value = TypeVar("Value")
Group = TypeVar("Group")


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter.

    kind: its type, lower case, by ROS's name: double, string_array, ... default: a list for arrays.
    minimum, maximum: inclusive, of a number. choices: of a string. dynamic: may be set while the
    node runs; the others are fixed at the start.
    """

    name: str
    kind: str
    default: Any
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    dynamic: bool = False

    @property
    def is_array(self) -> bool:
        return self.kind.endswith("_array")


def parameter(
    default: Value,
    description: str,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Collection[str] | Callable[[], Collection[str]] = (),
    dynamic: bool = False,
) -> Value:
    """A field that is a parameter; its annotation is its type. See ParameterSpec.

    choices may be a registry, or a function that reads one: it is read anew each time, so that what
    is registered later counts.
    """
    metadata = {
        "description": description,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
        "dynamic": dynamic,
    }
    return field(default=default, metadata={_KEY: metadata})


def options(description: str) -> dict[str, object]:
    """A field that is any number of parameters, by the names after a dot; none by default."""
    metadata = {
        "description": description,
        "minimum": None,
        "maximum": None,
        "choices": (),
        "dynamic": False,
    }
    return field(default_factory=dict, metadata={_KEY: metadata})


def seconds(default: float, description: str, minimum: float = 0.0) -> float:
    """A field that is a duration of an hour at most."""
    return parameter(default, description, minimum, _MAX_SECONDS)


def specs(table: type) -> tuple[ParameterSpec, ...]:
    """All parameters of a dataclass and of its groups, in the order in which they are written."""
    return tuple(spec for _, group in groups(table) for spec in group)


def groups(table: type) -> Iterator[tuple[str, tuple[ParameterSpec, ...]]]:
    """Each group's name and parameters; those that are in none come first, under the name ''."""
    hints = get_type_hints(table)
    own = tuple(
        _spec(each.name, hints[each.name], _default(each), each.metadata[_KEY])
        for each in fields(table)
        if _KEY in each.metadata
    )
    if own:
        yield "", own
    for each in fields(table):
        if is_dataclass(hints[each.name]):
            yield each.name, specs(hints[each.name])


def from_values(table: type[Group], values: Mapping[str, Any]) -> Group:
    """The dataclass with these values, lists as tuples; what is absent keeps its default.

    Names that it does not have are another node's and are not looked at.
    """
    hints = get_type_hints(table)
    given: dict[str, Any] = {}
    for each in fields(table):  # type: ignore[arg-type]
        if is_dataclass(hints[each.name]):
            given[each.name] = from_values(hints[each.name], values)
        elif _KINDS.get(hints[each.name]) == OPTIONS:
            given[each.name] = {**values.get(each.name, {}), **_below(each.name, values)}
        elif each.name in values:
            value = values[each.name]
            is_array = _KINDS.get(hints[each.name], "").endswith("_array")
            given[each.name] = tuple(value) if is_array else value
    return table(**given)


def _below(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `name.option`, by option."""
    start = f"{name}."
    return {key.removeprefix(start): each for key, each in values.items() if key.startswith(start)}


def _default(each: Field[Any]) -> Any:
    return each.default if each.default_factory is MISSING else each.default_factory()


def _spec(name: str, hint: Any, default: Any, metadata: Mapping[str, Any]) -> ParameterSpec:
    kind = _KINDS[hint]
    shown = list(default) if kind.endswith("_array") else default
    choices = metadata["choices"]
    choices = tuple(choices() if callable(choices) else choices)
    return ParameterSpec(name, kind, shown, **{**metadata, "choices": choices})
