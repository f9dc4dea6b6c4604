"""`qvla parameters`: what the nodes can be told, as Markdown, from the tables that declare and
check it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qvla_ros.nodes.parameters import ParameterSpec

HELP = "the parameters of the nodes as Markdown: types, defaults, ranges, meanings"
_HEADER = """\
# Parameters of the nodes

Written by `qvla parameters > docs/parameters.md` from the tables that declare and check them. Set one with
`--ros-args -p NAME:=VALUE`, or in a YAML file under `/**: ros__parameters:` as in [config/](../config/README.md).
A value of the wrong type or out of range ends the node with the reason and exit code 2. All are fixed at the start:
a limit that another process can lift while the arm moves is none.

`use_sim_time` and `qos_overrides.<topic>.subscription|publisher.{history,depth,reliability}` are ROS's own; the latter
work for inputs, chunks and commands, e.g. `qos_overrides./arm/joint_states.subscription.reliability: reliable`.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options: the whole page."""


def run(args: argparse.Namespace) -> int:
    print(page(), end="")
    return 0


def page() -> str:
    """All of docs/parameters.md."""
    from qvla_ros.nodes.libero_bridge import parameters as bridge_parameters
    from qvla_ros.nodes.policy import parameters as policy_parameters

    policy = (
        ("Model", policy_parameters.MODEL),
        ("Inputs", policy_parameters.INPUTS),
        ("Commands", policy_parameters.COMMANDS),
        ("Limits", policy_parameters.LIMITS),
        ("Watchdogs", policy_parameters.WATCHDOGS),
    )
    bridge = (("Episodes", bridge_parameters.EPISODES), ("Real time", bridge_parameters.REAL_TIME))
    return "\n".join([_HEADER, *_node("policy", policy), *_node("libero_bridge", bridge)])


def _node(name: str, groups: Sequence[tuple[str, Sequence[ParameterSpec]]]) -> Iterator[str]:
    yield f"## `{name}`\n"
    for title, specs in groups:
        yield f"### {title}\n"
        yield "| parameter | type | default | values | meaning |"
        yield "|---|---|---|---|---|"
        yield from map(_row, specs)
        yield ""


def _row(spec: ParameterSpec) -> str:
    from qvla_ros.nodes.parameters import kind_of

    kind = kind_of(spec).name.lower().replace("_array", "[]")
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
