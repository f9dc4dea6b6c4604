"""Measures how soon, and with which command, a policy node stops a robot for each fault.

Real processes talk over real DDS.

    python benchmarks/fault_table.py [--bundle DIR] [--rounds 3] [--executor events]

The policy is a fake (`sine`), so that it can be made to fail. A bundle describes the robot; without
--bundle the bundled policy is exported. Figures are the worst of the rounds. "stop begins after" is
by the node's clock, from the limit (or from when the event was noticed) to the first command of the
stop, for the clock and the deadman's loss too. "ticks" are those of its 100 Hz control thread in
that time. "hardest change of velocity" is that between the last commands, those of the stop among
them. "robot's last command" is by the robot's clock, from the injection of the fault on. The last
line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable
from dataclasses import asdict

import rclpy
from private_graph import private_graph
from rclpy.context import Context

from qvla_ros.parameters.policy import EXECUTORS
from qvla_ros.testing.fault_cases import joint_faults, pose_faults, twist_faults
from qvla_ros.testing.fault_drill import DrillOutcome


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--executor", choices=EXECUTORS, default=EXECUTORS[0], help="the policy node's"
    )
    args = parser.parse_args()
    with private_graph(args.bundle) as graph:
        context = Context()
        rclpy.init(context=context, domain_id=graph.domain_id)
        outcomes: dict[tuple[str, str], list[DrillOutcome]] = {}
        for number in range(args.rounds):
            for faults in (pose_faults, twist_faults, joint_faults):
                for outcome in faults(
                    context,
                    graph.bundle,
                    graph.environment,
                    graph.scratch,
                    executor=args.executor,
                ):
                    print(
                        f"round {number + 1}: {outcome.fault}: "
                        f"{outcome.stop_reason or 'commands end'}",
                        flush=True,
                    )
                    outcomes.setdefault((outcome.output, outcome.fault), []).append(outcome)
        rclpy.try_shutdown(context=context)
    print(
        "| output | fault | limit | stop reason | brakes to | hardest change of velocity, /s^2 | "
        "stop begins after, ms | ticks | robot's last command, ms |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for rounds in outcomes.values():
        print(row(rounds))
    print(json.dumps([asdict(outcome) for rounds in outcomes.values() for outcome in rounds]))


def row(rounds: Iterable[DrillOutcome]) -> str:
    """Returns one line of the table with the worst of the rounds.

    Words that differ between rounds are all shown.
    """
    rounds = list(rounds)
    first = f"{rounds[0].output} | {rounds[0].fault}"
    words = [
        " / ".join(dict.fromkeys(getattr(o, name) for o in rounds))
        for name in ("limit", "stop_reason", "command")
    ]
    last_ms = 1e3 * max(outcome.last_command_s for outcome in rounds)
    late = sum(outcome.commands_after for outcome in rounds)
    if not rounds[0].stop_reason:  # killed: nobody is left to measure
        return f"| {first} | {words[0]} | | commands end | | | | {last_ms:.0f} |"
    delay_ms = 1e3 * max(o.delay_s for o in rounds)
    ticks = max(o.delay_ticks for o in rounds)
    hardest = max(o.braking for o in rounds)
    braking = "" if math.isnan(hardest) else f"{hardest:.2f}"
    command = words[2] + (f", then {late} more" if late else "")
    return (
        f"| {first} | {words[0]} | {words[1]} | {command} | {braking} "
        f"| {delay_ms:.1f} | {ticks} "
        f"| {last_ms:.0f} |"
    )


if __name__ == "__main__":
    main()
