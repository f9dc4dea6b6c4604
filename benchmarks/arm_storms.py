"""Counts in how many storms of calls a stalled policy node ends disarmed, as it was last told to.

    python benchmarks/arm_storms.py [--storms 1000] [--bundle DIR] [--executor events]

A storm is up to six calls of ~/arm by two clients while the node does not look, then one of
~/cancel or ~/arm false. The node is real, and its services are called over DDS.
"""

from __future__ import annotations

import argparse

import rclpy
from private_graph import private_graph

from qvla_ros.parameters.policy import EXECUTORS
from qvla_ros.testing.arm_storm import storm_bench


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--storms", type=int, default=1000)
    parser.add_argument("--bundle")
    parser.add_argument("--executor", choices=EXECUTORS, default=EXECUTORS[0])
    args = parser.parse_args()
    with private_graph(args.bundle) as graph:
        rclpy.init(domain_id=graph.domain_id)
        context = rclpy.get_default_context()
        with storm_bench(context, graph.bundle, args.executor) as bench:
            outcomes = [bench.storm(seed) for seed in range(args.storms)]
        rclpy.try_shutdown()
    disarmed = sum(not armed for armed, _ in outcomes)
    granted = sum(count for _, count in outcomes)
    print(f"{disarmed} of {args.storms} ended disarmed; {granted} calls to arm were granted")


if __name__ == "__main__":
    main()
