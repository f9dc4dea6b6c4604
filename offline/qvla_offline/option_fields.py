"""Options of a step, written once: the fields of a frozen dataclass.

    @dataclass(frozen=True)
    class Budget:
        target_avg_bits: float = option(4.0, "bits per weight, scales included")

A recipe's section is parsed into the dataclass by qvla_ros.strict_json; a verb's parser gets its
options from the same fields by `add_options`, and `given` takes their values from the command line.
"""

from __future__ import annotations

import argparse
import types
from collections.abc import Callable, Collection
from dataclasses import MISSING, Field, asdict, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from qvla_ros.errors import QvlaError

_HELP = "help"
_LATER = "later"
Value = TypeVar("Value")


def option(default: Value, help: str, metavar: str | None = None, *, later: bool = False) -> Value:
    """Declares a field that is an option; its annotation decides how its text is read.

    The default is added to `help` unless that names one. A Literal is a choice of its values.
    later: true for every option that is added to a step which users have run: at its default it
    stays out of `step_values`, so that finished steps do not run again.
    """
    return field(default=default, metadata={_HELP: help, "metavar": metavar, _LATER: later})


def required_option(help: str) -> Any:
    """Declares a field that is an option and must be given."""
    return field(metadata={_HELP: help, "metavar": None})


def add_options(
    parser: argparse._ActionsContainer,
    kind: type,
    names: Collection[str] | None = None,
    default: str | None = None,
) -> None:
    """Adds `--NAME` for each option of the dataclass `kind`, or for those in `names`.

    An option that is not given is None, so that `given` can leave it out. A switch (bool) that is
    off or open by default is `--NAME` or `--no_NAME`. default: what help says in place of the
    field's own default.
    """
    hints = get_type_hints(kind)
    for entry in fields(kind):
        if _HELP not in entry.metadata or (names is not None and entry.name not in names):
            continue
        text = _help(entry, default)
        read = _reader(entry.name, hints[entry.name])
        if read is not bool:
            parser.add_argument(
                f"--{entry.name}",
                type=read,
                metavar=entry.metadata["metavar"] or _choices_shown(hints[entry.name]),
                required=entry.default is MISSING,
                help=text,
            )
        elif entry.default is False:
            parser.add_argument(
                f"--{entry.name}", action="store_const", const=True, help=entry.metadata[_HELP]
            )
        else:
            parser.add_argument(
                f"--no_{entry.name}",
                dest=entry.name,
                action="store_const",
                const=False,
                help=entry.metadata[_HELP],
            )


def given(args: argparse.Namespace, kind: type) -> dict[str, Any]:
    """Returns {name: value} of the options of `kind` that the command line names."""
    values = {entry.name: getattr(args, entry.name, None) for entry in fields(kind)}
    return {name: value for name, value in values.items() if value is not None}


def require_choices(options: Any) -> None:
    """Raises QvlaError naming a Literal field of `options` whose value is none of its choices."""
    for name, annotation in get_type_hints(type(options)).items():
        if get_origin(annotation) is Literal:
            _one_of(name, get_args(annotation))(getattr(options, name))


def step_values(options: Any) -> dict[str, Any]:
    """Returns {name: value} of the dataclass `options`, of which a step's inputs are hashed."""
    return {
        entry.name: asdict(options)[entry.name]
        for entry in fields(options)
        if not entry.metadata.get(_LATER) or getattr(options, entry.name) != entry.default
    }


def integers(text: str) -> tuple[int, ...]:
    """Reads '2,4,8' as (2, 4, 8)."""
    try:
        found = tuple(int(part) for part in text.replace(" ", "").split(",") if part)
    except ValueError:
        found = ()
    if not found:
        raise QvlaError("bits", text, "numbers with commas between them", "write e.g. --bits 2,4,8")
    return found


def _reader(name: str, annotation: Any) -> Callable[[str], Any]:
    """Returns the function that reads the text of option `name`; bool for a switch."""
    if get_origin(annotation) is Literal:
        return _one_of(name, get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        (annotation,) = [part for part in get_args(annotation) if part is not type(None)]
    if annotation == tuple[int, ...]:
        return integers
    return annotation if annotation in (bool, int, float, Path) else str


def _one_of(name: str, choices: tuple[str, ...]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            fix = f"choose with --{name}, e.g. --{name} {choices[0]}"
            raise QvlaError(name, text, f"one of {', '.join(choices)}", fix)
        return text

    return read


def _choices_shown(annotation: Any) -> str | None:
    return "{" + ",".join(get_args(annotation)) + "}" if get_origin(annotation) is Literal else None


def _help(entry: Field[Any], default: str | None) -> str:
    text = str(entry.metadata[_HELP])
    if default is None and entry.default not in (None, MISSING):
        value = entry.default
        default = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if default is None or "default" in text else f"{text} (default: {default})"
