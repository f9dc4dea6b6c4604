"""Tools that watch a running ROS graph: `record` writes a bag, `graph` lists who hears whom."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence

from qvla_ros.nodes.tools.graph_doctor import read_graph
from qvla_ros.nodes.tools.recorder import record
from qvla_ros.recording.settings import add_recorder_arguments, recorder_settings
from qvla_ros.ros_graph import Topic, incompatibility


def graph_lines(topics: Mapping[str, Topic]) -> Iterator[str]:
    """A line a topic, then one a pair of a publisher and a subscription, or a lonely end."""
    for name, topic in sorted(topics.items()):
        yield f"{name} [{', '.join(topic.kinds)}]"
        for publisher in topic.publishers:
            for subscription in topic.subscriptions:
                reason = incompatibility(publisher, subscription)
                blocked = "" if reason is None else f": not heard, {reason}"
                yield f"  {publisher.node} -> {subscription.node}{blocked}"
            if not topic.subscriptions:
                yield f"  {publisher.node} -> nobody"
        if not topic.publishers:
            yield from (f"  nobody -> {subscription.node}" for subscription in topic.subscriptions)


def main(args: Sequence[str] | None = None) -> int:
    """Runs the tool that is named first in `args`; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m qvla_ros.nodes.tools", description=__doc__)
    tools = parser.add_subparsers(dest="tool", required=True)
    add_recorder_arguments(tools.add_parser("record", help="record policy nodes, as `qvla record`"))
    graph = tools.add_parser("graph", help="list all topics, their nodes, and who hears whom")
    graph.add_argument("--wait_s", type=float, default=2.0, help="how long to discover the graph")
    given = parser.parse_args(args)
    if given.tool == "record":
        return record(recorder_settings(given))
    print("\n".join(graph_lines(read_graph((), given.wait_s, 0.0).topics)))
    return 0
