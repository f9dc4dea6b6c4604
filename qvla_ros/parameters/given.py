"""What a node is given in parameter files and on its command line, and what of it is in force."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import yaml

from qvla_ros.errors import QvlaError
from qvla_ros.parameters.files import Written, read_parameter_file, read_value

_NODE_RULE = re.compile(r"(?:([^:=]+):)?([^:=]+):=(.*)", re.DOTALL)


def read_arguments(arguments: Sequence[str]) -> list[Written]:
    """The parameters of all --params-file and -p after --ros-args, in the order of their force.

    QvlaError for a file or a value that rcl would not take.
    """
    words = list(_after_ros_args(arguments))
    files: list[Written] = []
    rules: list[Written] = []
    for flag, value in pairwise(words):
        if flag == "--params-file":
            files += read_parameter_file(Path(value))
        elif flag in ("-p", "--param") and (rule := _NODE_RULE.fullmatch(value)):
            rules.append(_rule(f"{flag} {value}", *rule.groups()))
    return files + rules  # rules win over files, wherever they stand


def _after_ros_args(arguments: Iterable[str]) -> Iterator[str]:
    inside = False
    for word in arguments:
        if word == "--ros-args":
            inside = True
        elif word == "--":
            inside = False
        elif inside:
            yield word


def _rule(source: str, node: str | None, name: str, text: str) -> Written:
    try:
        parsed = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        found = getattr(error, "problem", None) or error
        raise QvlaError(source, found, "a value in YAML: 0.5, text, [1, 2]") from None
    section = "" if node is None else f"/{node.strip('/')}"
    if parsed is None:
        raise QvlaError(source, "no value", "NAME:=VALUE", "write a value, or take it out")
    return Written(source, section, name, read_value(parsed, source, name))


def fits(section: str, node: str) -> bool:
    """Whether a section is for this node, a full name such as /arm/policy.

    * stands for one part of a name and ** for any number of them, as in rcl_yaml_param_parser.
    """
    return not section or _fits(section.strip("/").split("/"), node.strip("/").split("/"))


def _fits(pattern: Sequence[str], parts: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(pattern[1:], parts[skipped:]) for skipped in range(len(parts) + 1))
    return bool(parts) and pattern[0] in ("*", parts[0]) and _fits(pattern[1:], parts[1:])


def in_force(written: Iterable[Written], node: str) -> dict[str, Written]:
    """The parameters that the node gets, by name: of several, the last."""
    return {each.name: each for each in written if fits(each.section, node)}


def overruled(written: Sequence[Written], node: str) -> Iterator[tuple[Written, Written]]:
    """Pairs of a value and a less particular one after it in the same file, which wins in ROS.

    A particular value after a general one, and a file after a file, are meant to win.
    """
    fitting = [each for each in written if each.section and fits(each.section, node)]
    for position, early in enumerate(fitting):
        for late in fitting[position + 1 :]:
            same = early.name == late.name and file_of(early) == file_of(late)
            if same and early.value != late.value and _breadth(late) >= _breadth(early):
                yield early, late


def is_particular(section: str) -> bool:
    """Whether a section, or a command line, is for one node alone."""
    return "*" not in section


def file_of(written: Written) -> str:
    """The file that holds it; empty on a command line."""
    return written.source.rpartition(", line ")[0]


def _breadth(written: Written) -> int:
    """How many names a section may stand for: 0 for one alone; ** more than any number of *."""
    parts = written.section.split("/")
    return 100 * parts.count("**") + parts.count("*")
