"""`qvla doctor`: what stands between a machine, a ROS graph and a running policy.

A line a matter, and its fix.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qvla_ros.doctor.findings import Finding, problem, warning
from qvla_ros.engines import BACKENDS, engine_options
from qvla_ros.errors import NO_KNOWN_FIX, QvlaError
from qvla_ros.robots import read_remaps

if TYPE_CHECKING:
    from qvla_ros.bundle import Bundle

HELP = "check this machine, a bundle and the running ROS graph; exit status 1 if there is a problem"
_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bundle", type=Path, help="also check this bundle, its engine and what its policy reads"
    )
    parser.add_argument(
        "--backend",
        default="onnxruntime",
        choices=BACKENDS,
        help="what shall run the bundle's graph",
    )
    parser.add_argument(
        "--engine_options", type=engine_options, default={}, help="JSON, e.g. '{\"threads\": 2}'"
    )
    parser.add_argument("--namespace", default="", help="of the policy node, e.g. /arm")
    parser.add_argument(
        "--remaps_file",
        type=Path,
        help="YAML of relative name: topic, as config/robots/ROBOT/remaps.yaml",
    )
    parser.add_argument(
        "--params_file",
        type=Path,
        help="YAML of the policy node's parameters, as config/robots/ROBOT/node.yaml",
    )
    parser.add_argument(
        "--listen_s", type=float, default=2.0, help="how long to listen to the graph"
    )
    parser.add_argument("--no_graph", action="store_true", help="leave the running ROS graph alone")
    parser.add_argument(
        "--write_parity", action="store_true", help="keep this machine's answers in the bundle"
    )
    parser.add_argument(
        "--remove_orphans", action="store_true", help="free what killed nodes left in shared memory"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(args: argparse.Namespace) -> int:
    found = []
    for finding in findings(args):
        found.append(finding)
        if not args.json:
            _show(finding)
    if args.json:
        print(json.dumps([asdict(finding) for finding in found], indent=1))
    else:
        counts = Counter(finding.status for finding in found)
        print(f"{counts['problem']} problems, {counts['warning']} warnings, {counts['ok']} ok")
    return int(any(finding.status == "problem" for finding in found))


def findings(args: argparse.Namespace) -> Iterator[Finding]:
    """Everything that the options ask for, in the order in which one thing needs another."""
    from qvla_ros.doctor.bundle_checks import bundle_findings, plan_findings, policy_findings
    from qvla_ros.doctor.environment import read_machine
    from qvla_ros.doctor.machine_checks import machine_findings
    from qvla_ros.evaluation.shared_memory import remove_orphans

    if args.remove_orphans:
        remove_orphans()
    machine = read_machine()
    bundle = None
    if args.bundle is not None:
        bundle, finding = bundle_findings(args.bundle)
    yield from machine_findings(machine, bundle)
    if args.bundle is not None:
        yield finding
    if bundle is not None:
        yield from plan_findings(bundle, machine, args.backend)
        if args.write_parity:
            _write_parity(bundle, args)
        yield from policy_findings(bundle, args.backend, args.engine_options)
    if any(error.key.startswith(("ROS_", "RMW_", "RCUTILS_", "HOME")) for error in machine.errors):
        yield warning("graph", "not looked at: ROS would not start", "mend the environment first")
        return
    yield from _ros_findings(args, bundle)


def _write_parity(bundle: Bundle, args: argparse.Namespace) -> None:
    from qvla_ros.doctor.parity import write_parity
    from qvla_ros.policy import load_policy

    policy = load_policy(bundle.directory, args.backend, **args.engine_options)
    write_parity(policy)
    policy.close()


def _ros_findings(args: argparse.Namespace, bundle: Bundle | None) -> Iterator[Finding]:
    from qvla_ros.doctor.findings import failed, ok
    from qvla_ros.doctor.graph_checks import graph_findings
    from qvla_ros.doctor.needed_inputs import needed_inputs, unused_remaps
    from qvla_ros.doctor.parameter_checks import parameter_findings

    parameters: Mapping[str, Any] = {}
    if args.params_file is not None:
        node = f"/{args.namespace.strip('/')}".rstrip("/") + "/policy"
        parameters, found = parameter_findings(args.params_file, node)
        yield from found
    remaps = {}
    if args.remaps_file is not None:
        remaps = read_remaps(args.remaps_file, "--remaps_file")
        for name in unused_remaps(remaps, bundle):
            fix = "correct the name, or take the line out if the bundle has no such camera"
            yield warning(str(args.remaps_file), f"{name} is no input of the policy", fix)
    try:
        from qvla_ros.nodes.tools.graph_doctor import check_messages, read_graph

        check_messages()
    except Exception as error:  # a missing library is an ImportError, OSError or rclpy's own
        yield problem("messages", f"{type(error).__name__}: {error}", _messages_fix(error))
        return
    yield ok("messages", "qvla/ActionChunk and qvla/PolicyStatus can be sent")
    if args.no_graph:
        return
    try:
        inputs = [] if bundle is None else needed_inputs(bundle, args.namespace, remaps, parameters)
        graph = read_graph(inputs, args.listen_s, args.listen_s)
    except QvlaError as error:
        yield failed("graph", error)
        return
    yield from graph_findings(graph, inputs, bundle)


def _messages_fix(error: Exception) -> str:
    """What brings ROS or the messages, where it is their absence that shows."""
    if not isinstance(error, ModuleNotFoundError):
        return NO_KNOWN_FIX
    if (error.name or "").partition(".")[0] == "qvla":
        return "source install/setup.bash of the colcon workspace; in a checkout: make setup"
    return "source /opt/ros/DISTRO/setup.bash; in a checkout: make setup"


def _show(finding: Finding) -> None:
    from rich.console import Console
    from rich.text import Text

    text = Text.assemble(
        (f"{finding.status:<8} ", _STYLES[finding.status]),
        (finding.about, "bold"),
        f": {finding.text}",
    )
    if finding.fix:
        text.append(f"\n         fix: {finding.fix}")
    Console(soft_wrap=True, highlight=False).print(text)
