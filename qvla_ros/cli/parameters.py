"""`qvla parameters`: the parameters of the nodes as Markdown, from the tables that declare them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qvla_ros.parameters.table import ParameterSpec

HELP = "the parameters of the nodes as Markdown: types, defaults, ranges, meanings"
_HEADER = """\
# Parameters of the nodes

Written by `qvla parameters > docs/parameters.md` from the tables that declare and check them. Set
one with `--ros-args -p NAME:=VALUE`, or in a YAML file under `/**: ros__parameters:` as in
[config/](../config/README.md). A value of the wrong type or out of range ends the node with the
reason and exit code 2. All are fixed at the start: a limit that another process can lift while the
arm moves is none.

`use_sim_time` and `qos_overrides.<topic>.subscription|publisher.{history,depth,reliability}` are
ROS's own. The latter work for inputs, chunks and commands, for example
`qos_overrides./arm/joint_states.subscription.reliability: reliable`.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options: the whole page."""


def run(args: argparse.Namespace) -> int:
    print(page(), end="")
    return 0


def page() -> str:
    """All of docs/parameters.md."""
    from qvla_ros.parameters.bridge import BridgeParameters
    from qvla_ros.parameters.policy import PolicyParameters

    policy = _node("policy", PolicyParameters)
    bridge = _node("libero_bridge", BridgeParameters)
    return "\n".join([_HEADER, *policy, *bridge])


def _node(name: str, table: type) -> Iterator[str]:
    from qvla_ros.parameters.table import groups

    yield f"## `{name}`\n"
    for group, specs in groups(table):
        yield f"### {group.replace('_', ' ').capitalize()}\n"
        yield "| parameter | type | default | values | meaning |"
        yield "|---|---|---|---|---|"
        yield from map(_row, specs)
        yield ""


def _row(spec: ParameterSpec) -> str:
    kind = spec.kind.replace("_array", "[]")
    meaning = spec.description.replace("|", "\\|")
    return f"| `{spec.name}` | {kind} | `{_literal(spec.default)}` | {_values(spec)} | {meaning} |"


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    return f"[{', '.join(map(_literal, value))}]" if isinstance(value, list) else str(value)


def _values(spec: ParameterSpec) -> str:
    if spec.choices:
        return ", ".join(f"`{choice}`" for choice in spec.choices)
    return "" if spec.minimum is None else f"{spec.minimum:g} to {spec.maximum:g}"
