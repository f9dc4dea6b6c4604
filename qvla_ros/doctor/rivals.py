"""Checks for two of what there should be one: nodes of a name, publishers, commanders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from qvla_ros.control.outputs import OUTPUTS
from qvla_ros.doctor.findings import Finding, problem, warning
from qvla_ros.doctor.graph import Graph
from qvla_ros.doctor.needed_inputs import Input
from qvla_ros.messages.kinds import COMPRESSED_IMAGE, IMAGE, JOINTS, POSE
from qvla_ros.ros_graph import Topic, policy_nodes

# Where two publishers are two truths. Instructions may come from several.
_STREAMS = {IMAGE, COMPRESSED_IMAGE, POSE, "std_msgs/msg/Bool"}
_GRIPPER_COMMAND = "std_msgs/msg/Float64MultiArray"
_SHOWN = "/predicted_trajectory"  # for displays
# What rmw gives an endpoint whose participant it cannot hear.
_UNKNOWN = "_NODE_NAME_UNKNOWN_"


def rival_findings(graph: Graph, inputs: Sequence[Input]) -> Iterator[Finding]:
    """Nodes of one name, nodes without one, second publishers of inputs and second commanders."""
    policies = set(policy_nodes(graph.topics))
    yield from _twins(graph, policies)
    yield from _nameless(graph)
    usual = {name for needed in inputs for name in needed.kinds}
    for name, topic in sorted(graph.topics.items()):
        read = name in usual or bool({each.node for each in topic.subscriptions} & policies)
        if read and len(topic.publishers) > 1:
            yield from _second_publisher(name, topic)
        if is_command(name, topic, policies) and len(topic.publishers) > 1:
            fix = "disarm, and stop all but one: the controller follows whichever came last"
            yield problem(name, f"{_publishers(topic)} command on it", fix)


def _second_publisher(name: str, topic: Topic) -> Iterator[Finding]:
    kinds = set(topic.kinds)
    text = f"{_publishers(topic)} publish it"
    if JOINTS in kinds:
        fix = "see that no joint comes from two of them, or stop one"
        yield warning(name, f"{text}: of each joint the newest state counts", fix)
    elif kinds & _STREAMS:
        fix = "stop all but one, or remap the policy's input to the one that it should follow"
        yield warning(name, f"{text}: the policy takes them by turns", fix)


def is_command(name: str, topic: Topic, policies: Collection[str]) -> bool:
    """Whether a policy moves something by this topic."""
    kinds = {_GRIPPER_COMMAND, *(output.message_type for output in OUTPUTS.values())}
    commanding = {each.node for each in topic.publishers} & set(policies)
    return bool(commanding and set(topic.kinds) & kinds) and not name.endswith(_SHOWN)


def _publishers(topic: Topic) -> str:
    counts = Counter(each.node for each in topic.publishers)
    return ", ".join(f"{count} x {node}" if count > 1 else node for node, count in counts.items())


def _twins(graph: Graph, policies: Collection[str]) -> Iterator[Finding]:
    counts = Counter(graph.nodes)
    for node, count in sorted(counts.items()):
        if count > 1:
            judged = problem if node in policies else warning
            fix = "stop all but one, or start it with -r __node:=ANOTHER or in a namespace"
            text = f"{count} nodes have this name: services and parameters reach any of them"
            yield judged(f"node {node}", text, fix)


def _nameless(graph: Graph) -> Iterator[Finding]:
    """Endpoints whose node is not heard: only a part of what its process says gets through."""
    topics = sorted(
        name
        for name, topic in graph.topics.items()
        if any(_UNKNOWN in each.node for each in (*topic.publishers, *topic.subscriptions))
    )
    if topics:
        text = f"a node without a name is on {', '.join(topics[:4])}: its messages may not arrive"
        fix = (
            "if it is another user's (docker), see `users` above; if it just started or died, "
            "run this again"
        )
        yield problem("nodes", text, fix)
