"""Damages parameter files, and reads them as ROS does and as this project does."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import rclpy
from rclpy.node import Node

from qvla_ros.errors import QvlaError
from qvla_ros.parameters.files import read_parameter_file
from qvla_ros.parameters.given import in_force

NODE = "/arm/policy"
TOKENS = ("-3", ":", "  ", "\n", "\t", "[", "}", "'", "#", "/**", "&a ", "*a", "!!str ", "|")


def mutated(text: str, draw: random.Random) -> str:
    """The lines of a parameter file without comments, one or two of them damaged."""
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    for _ in range(draw.choice((1, 1, 2))):
        number = draw.randrange(len(lines))
        column = draw.randrange(len(lines[number]) + 1)
        token = draw.choice((*TOKENS, lines[draw.randrange(len(lines))]))
        kept = draw.choice((column, column, len(lines[number])))
        lines[number] = lines[number][:column] + token + lines[number][kept:]
    return "\n".join(lines)


def of_ros(path: Path) -> dict[str, Any] | None:
    """What ROS gives the node; None if it refuses the file. A list without a type has no value."""
    context = rclpy.Context()
    try:
        rclpy.init(args=["--ros-args", "--params-file", str(path)], context=context)
    except RuntimeError:
        return None
    try:
        node = Node(
            "policy",
            namespace="/arm",
            context=context,
            enable_rosout=False,
            start_parameter_services=False,
        )
        found = {name: given.value for name, given in node._parameter_overrides.items()}
        node.destroy_node()
    finally:
        context.try_shutdown()
    return {name: plain(value) for name, value in found.items()}


def plain(value: Any) -> Any:
    value = value if isinstance(value, (str, bool, int, float, type(None))) else list(value)
    return None if value == [] else value


def of_this(path: Path) -> dict[str, Any] | None:
    try:
        written = read_parameter_file(path)
    except QvlaError:
        return None
    return {name: plain(each.value) for name, each in in_force(written, NODE).items()}
