"""Parses JSON into frozen dataclasses, strictly.

A missing or unknown key or a wrong type is an error that names the key.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from qvla_ros.errors import QvlaError, os_error_fix, quoted


def read_json(path: Path, fix: str) -> Any:
    """The parsed content of `path`.

    QvlaError when it is absent, not UTF-8 JSON, or holds NaN or Infinity. fix: for a file that is
    absent or broken; one that the system does not let us read has a fix of its own.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise QvlaError(str(path), "no such file", "a JSON file", fix) from None
    except OSError as error:
        raise QvlaError(str(path), error, "a file to read", os_error_fix(error)) from None
    except ValueError as error:
        raise QvlaError(str(path), error, "a readable JSON file", fix) from None
    except RecursionError:
        raise QvlaError(str(path), "brackets in brackets without end", "JSON", fix) from None


def parse(expected: Any, value: Any, key: str, fix: str) -> Any:
    """`value`, as json.loads gives it, as an instance of the type `expected`.

    `key` is its path, for the message.

    Types: frozen dataclasses, str, bool, int, float (finite; an integer is a float too), Literal, X
    | None, tuple[X, ...] and tuple[X, Y] (JSON lists), dict[str, X].
    """

    def refuse(description: str) -> QvlaError:
        return QvlaError(key, quoted(value), description, fix)

    origin = get_origin(expected)
    arguments = get_args(expected)
    if dataclasses.is_dataclass(expected):
        return _parse_dataclass(expected, value, key, fix)
    if origin in (Union, types.UnionType):
        inner = [argument for argument in arguments if argument is not type(None)]
        return None if value is None else parse(inner[0], value, key, fix)
    if origin is Literal:
        if value not in arguments or isinstance(value, bool):
            raise refuse("one of " + ", ".join(map(repr, arguments)))
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise refuse("a list")
        element_types = (
            [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        )
        if len(element_types) != len(value):
            raise refuse(f"a list of length {len(element_types)}")
        pairs = enumerate(zip(element_types, value, strict=True))
        return tuple(parse(kind, item, f"{key}[{i}]", fix) for i, (kind, item) in pairs)
    if origin is dict:
        if not isinstance(value, dict):
            raise refuse("an object")
        return {
            name: parse(arguments[1], item, f"{key}.{name}", fix) for name, item in value.items()
        }
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        value = _as_float(value)
    written = _number_as_text(value) if expected is float else None
    if written is not None:
        raise QvlaError(key, f"the text {value!r}", "a number", f"write {written}, without quotes")
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise refuse(
            {str: "a string", bool: "true or false", int: "an integer", float: "a number"}[expected]
        )
    if expected is float and not math.isfinite(value):
        raise refuse("a finite number")
    return value


def canonical_json(value: Any) -> bytes:
    """Returns one byte string per JSON value, of which identities are hashed.

    It has sorted keys, no white space, and is ASCII.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _parse_dataclass(kind: Any, value: Any, key: str, fix: str) -> Any:
    if not isinstance(value, dict):
        raise QvlaError(key, quoted(value), "an object", fix)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(set(value) - set(fields))
    if unknown:
        raise QvlaError(f"{key}.{unknown[0]}", "an unknown key", "one of " + ", ".join(fields), fix)
    missing = [
        name
        for name, field in fields.items()
        if name not in value and field.default is dataclasses.MISSING
    ]
    if missing:
        raise QvlaError(f"{key}.{missing[0]}", "nothing (the key is missing)", "a value", fix)
    hints = _type_hints(kind)
    return kind(
        **{name: parse(hints[name], item, f"{key}.{name}", fix) for name, item in value.items()}
    )


@cache
def _type_hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _number_as_text(value: Any) -> str | None:
    """How to write a number that is text to the parser: YAML reads 1e-3 so. None for others."""
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    plain = f"{number:.6g}"
    return f"{number:e}" if "e" in plain else str(float(plain))


def _as_float(value: int) -> float:
    """The number; infinity for one that no float holds."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
