"""Reads parameter files as rcl does, and keeps the place of every value, for messages.

rcl refuses some files with a line and no file, and others with neither; what it does not read it
passes over in silence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from qvla_ros.errors import QvlaError

_KEY = "ros__parameters"
_TRUE = {"y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"}
_FALSE = {"n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"}
_INTEGER = re.compile(r"[+-]?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
# What C's strtod reads, and what YAML writes for infinity.
_FLOAT = re.compile(
    r"[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|\.?(inf|nan)|infinity)", re.IGNORECASE
)
_HEXADECIMAL = re.compile(
    r"[+-]?0x([0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)(p[+-]?[0-9]+)?", re.IGNORECASE
)
_SECTION = re.compile(r"/?(\*\*|\*|[A-Za-z_]\w*)(/(\*\*|\*|[A-Za-z_]\w*))*")
_EXAMPLE = "as config/policy.yaml has it"
_NAMES = {bool: "true or false", int: "whole", float: "decimal", str: "text"}


@dataclass(frozen=True)
class Written:
    """A parameter as a file or a command line writes it.

    source: the file and line, or the argument. section: the node's name, which may hold * and **,
    always with a slash in front; "" on a command line that names no node.
    """

    source: str
    section: str
    name: str
    value: Any


def read_parameter_file(path: Path) -> list[Written]:
    """All parameters of a file, in its order. QvlaError if rcl would not take the file."""
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
        return [] if root is None else list(_sections(path, root, ""))
    except FileNotFoundError:
        raise QvlaError(str(path), "no such file", "a parameter file", "correct the path") from None
    except OSError as error:
        raise QvlaError(str(path), error.strerror or error, "a parameter file") from None
    except UnicodeDecodeError as error:
        raise QvlaError(str(path), error, "a text in UTF-8") from None
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        found = error.problem or error.context or "what is no YAML"
        raise QvlaError(f"{path}{line}", found, f"YAML, {_EXAMPLE}", "correct that line") from None
    except yaml.YAMLError as error:
        raise QvlaError(str(path), error, f"YAML, {_EXAMPLE}") from None
    except RecursionError:
        raise QvlaError(str(path), "too deep a nesting", f"YAML, {_EXAMPLE}") from None


def scalar(text: str) -> bool | int | float | str:
    """The value that rcl reads from a text without quotes."""
    if text in _TRUE | _FALSE:
        return text in _TRUE
    if _INTEGER.fullmatch(text):
        sign = -1 if text.startswith("-") else 1
        digits = text.lstrip("+-")
        base = 16 if digits[:2].lower() == "0x" else 8 if digits.startswith("0") else 10
        number = sign * int(digits, base)
        return number if -(2**63) <= number < 2**63 else float(number)
    if _FLOAT.fullmatch(text):
        decimal = float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
        return text if math.isinf(decimal) and "inf" not in text.lower() else decimal
    if _HEXADECIMAL.fullmatch(text):
        return float.fromhex(text)
    return text


def _sections(path: Path, node: yaml.Node, section: str) -> Iterator[Written]:
    """Walks down to ros__parameters: a section may be written in one key or in nested ones."""
    if not isinstance(node, yaml.MappingNode):
        raise _misplaced(path, node, section)
    for key, name, value in _entries(path, node):
        if name == _KEY and section:
            if not isinstance(value, yaml.MappingNode):
                fix = f"write `{_KEY}: {{}}`, or the parameters indented below it"
                raise QvlaError(_place(path, key), "nothing below it", "name: value lines", fix)
            yield from _parameters(path, value, section, "")
        elif isinstance(value, yaml.MappingNode) and name != _KEY:
            if not _SECTION.fullmatch(name):
                fix = "write /**: for every node, or the node's full name: /arm/policy:"
                raise QvlaError(_place(path, key), repr(name), "the name of a node", fix)
            if get_close_matches(name, [_KEY], 1, cutoff=0.85):
                raise QvlaError(_place(path, key), name, _KEY, f"write {_KEY} (two underscores)")
            yield from _sections(path, value, f"{section}/{name.strip('/')}")
        else:
            raise _misplaced(path, key, section)


def _entries(path: Path, node: yaml.MappingNode) -> Iterator[tuple[yaml.Node, str, yaml.Node]]:
    """Key, its text and value. QvlaError for a key that comes twice: rcl would drop one of them."""
    lines: dict[str, int] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or not key.value:
            raise QvlaError(_place(path, key), "a key that is no name", "a name")
        if key.value in lines:
            found = f"{key.value} again, after line {lines[key.value]}"
            raise QvlaError(_place(path, key), found, "every name once", "make one of the two")
        lines[key.value] = key.start_mark.line + 1
        yield key, key.value, value


def _misplaced(path: Path, node: yaml.Node, section: str) -> QvlaError:
    found = repr(node.value) if isinstance(node, yaml.ScalarNode) else "no mapping"
    expected = f"a node's name, {_KEY} below it, and parameters below that"
    fix = f"put it below `/**:` and `{_KEY}:`, {_EXAMPLE}"
    return QvlaError(_place(path, node), found, expected, fix)


def _parameters(path: Path, node: yaml.MappingNode, section: str, prefix: str) -> Iterator[Written]:
    for key, own_name, value in _entries(path, node):
        name = prefix + own_name
        if isinstance(value, yaml.MappingNode):  # rcl reads {a: {b: 1}} as a.b
            if not value.value:
                raise QvlaError(_place(path, key), f"{name}: {{}}", "a value", "take the line out")
            yield from _parameters(path, value, section, f"{name}.")
        else:
            yield Written(_place(path, key), section, name, read_value(value, path, name))


def read_value(node: yaml.Node, path: Path | str, name: str) -> Any:
    """A scalar or a list of one type. QvlaError for nothing, and for a list of several types."""
    if isinstance(node, yaml.ScalarNode):
        if node.style is None and not node.value:
            fix = "write a value, or take the line out"
            raise QvlaError(_place(path, node), f"{name} without a value", "a value", fix)
        return node.value if _is_text(node) else scalar(node.value)
    is_flat = isinstance(node, yaml.SequenceNode) and all(
        isinstance(item, yaml.ScalarNode) for item in node.value
    )
    if not is_flat:
        expected = "a value, or a list of values"
        fix = f"give each a parameter of its own: {name}.NAME"
        raise QvlaError(_place(path, node), f"{name} with values inside values", expected, fix)
    values = [read_value(item, path, name) for item in node.value]
    if len({type(value) for value in values}) > 1:
        raise _mixed(node, values, path, name)
    return values


def _is_text(node: yaml.ScalarNode) -> bool:
    """Whether it is quoted, or tagged !!str: then it is a text whatever it looks like."""
    mark = node.start_mark
    is_tagged = mark.buffer is not None and mark.buffer.startswith("!!str", mark.pointer)
    return node.style is not None or is_tagged


def _mixed(node: yaml.SequenceNode, values: list[Any], path: Path | str, name: str) -> QvlaError:
    """Numbers are mended by a decimal point; which type others were to have is not known."""
    texts = [item.value for item in node.value]
    found = f"{name} = [{', '.join(map(str, texts))}]"
    expected = "values of one type: ROS takes -3 for a whole number and -3.0 for a decimal one"
    kinds = {type(value) for value in values}
    fix = ""
    if kinds == {int, float}:
        whole = [text for text, value in zip(texts, values, strict=True) if type(value) is int]
        fix = "write " + ", ".join(f"{scalar(text)}.0" for text in whole)
    elif kinds <= set(_NAMES):
        expected = f"values of one type, not {' and '.join(sorted(_NAMES[kind] for kind in kinds))}"
    return QvlaError(_place(path, node), found, expected, fix)


def _place(path: Path | str, node: yaml.Node) -> str:
    return f"{path}, line {node.start_mark.line + 1}" if isinstance(path, Path) else str(path)
