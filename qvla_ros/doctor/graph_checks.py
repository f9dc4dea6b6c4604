"""Checks that a running graph has a policy's inputs, and that its nodes hear each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from qvla_ros.bundle import Bundle
from qvla_ros.doctor.findings import Finding, failed, ok, problem, warning
from qvla_ros.doctor.graph import Graph, Heard
from qvla_ros.doctor.needed_inputs import Input
from qvla_ros.doctor.rivals import is_command, rival_findings
from qvla_ros.errors import QvlaError
from qvla_ros.messages.kinds import COMPRESSED_IMAGE, IMAGE, JOINTS, POSE, TEXT
from qvla_ros.observation import MAX_LEAD_S
from qvla_ros.ros_graph import Topic, incompatibility, policy_nodes

CLOCK = "/clock"
_IGNORED = ("/rosout", "/parameter_events")
_INPUT_KINDS = {IMAGE, COMPRESSED_IMAGE, JOINTS, POSE, TEXT}


def graph_findings(
    graph: Graph, inputs: Sequence[Input], bundle: Bundle | None
) -> Iterator[Finding]:
    """Checks the policies, the topics that the bundle needs, the clock, and every pair of nodes."""
    yield from rival_findings(graph, inputs)
    yield from _policies(graph, bundle)
    yield from _unanswered(graph, inputs)
    yield from _unheard(graph)
    for needed in inputs:
        yield _input(graph, needed)
    yield from _clock(graph)
    yield from _mismatches(graph)


def _policies(graph: Graph, bundle: Bundle | None) -> Iterator[Finding]:
    found = policy_nodes(graph.topics)
    if not found:
        yield warning(
            "policy node",
            "none runs in this graph",
            "start it, or check ROS_DOMAIN_ID and discovery range",
        )
    for node in found:
        status = graph.states.get(node)
        about = f"policy node {node}"
        if status is None:
            yield warning(about, "says nothing on its status topic", "read its log")
            continue
        state = ("waiting", "running", "fault", "inactive")[status.state]
        text = (
            f"{state}, {'armed' if status.armed else 'disarmed'}, bundle "
            f"{status.bundle_id or 'none'}"
        )
        if status.state == status.FAULT:
            yield problem(
                about,
                f"{text}: {status.reason}",
                "deactivate and activate it once the reason is fixed",
            )
        elif bundle is not None and status.bundle_id not in ("", bundle.bundle_id):
            yield warning(
                about,
                f"{text}, not the bundle {bundle.bundle_id} asked about",
                "name the bundle that runs",
            )
        elif status.state == status.WAITING:
            yield warning(
                about, f"{text}: {status.reason}", "the reason names the input that it waits for"
            )
        else:
            yield ok(about, text)


def _unanswered(graph: Graph, inputs: Sequence[Input]) -> Iterator[Finding]:
    """Topics of policies under unusual names that nobody publishes."""
    policies = set(policy_nodes(graph.topics))
    usual = {name for needed in inputs for name in needed.kinds}
    for name, topic in sorted(graph.topics.items()):
        waiting = {endpoint.node for endpoint in topic.subscriptions} & policies
        if (
            waiting
            and not topic.publishers
            and name not in usual
            and set(topic.kinds) & _INPUT_KINDS
        ):
            fix = "start what publishes it, or correct the remapping"
            yield problem(
                name, f"{', '.join(sorted(waiting))} waits for it, nobody publishes it", fix
            )


def _unheard(graph: Graph) -> Iterator[Finding]:
    """Commands of policies that no controller listens to."""
    policies = set(policy_nodes(graph.topics))
    for name, topic in sorted(graph.topics.items()):
        if is_command(name, topic, policies) and not topic.subscriptions:
            commanding = {endpoint.node for endpoint in topic.publishers} & policies
            fix = (
                "start the controller, or correct output_topic and gripper_topic; in "
                "phase observe nobody is to listen"
            )
            yield warning(
                name, f"{', '.join(sorted(commanding))} commands on it, nobody listens", fix
            )


def _input(graph: Graph, needed: Input) -> Finding:
    policies = set(policy_nodes(graph.topics))
    if policies and not any(policies & _subscribers(graph, name) for name in needed.kinds):
        return warning(
            needed.name,
            "no policy node subscribes to it",
            "remapped: give --remaps_file; else another --namespace",
        )
    name = next((n for n in needed.kinds if n in graph.topics and graph.topics[n].publishers), None)
    if name is None:
        kind = needed.kinds[needed.name]
        others = sorted(
            n for n, topic in graph.topics.items() if any(p.kind == kind for p in topic.publishers)
        )
        fix = "start what publishes it" + (
            f", or remap one of these to it: {', '.join(others)}" if others else ""
        )
        return problem(needed.name, "nobody publishes it", fix)
    publishers = graph.topics[name].publishers
    wish = replace(needed.wish, kind=needed.kinds[name])
    reasons = {p.node: incompatibility(p, wish) for p in publishers}
    if all(reasons.values()):
        node, reason = next(iter(reasons.items()))
        fix = f"change the publisher, or set qos_overrides.{name}.subscription.* of the policy node"
        return problem(name, f"from {node}: {reason}", fix)
    source = ", ".join(sorted(node for node, reason in reasons.items() if reason is None))
    heard = graph.heard.get(name)
    if heard is None:
        fix = "read that node's log; check the Fast DDS profile if images are large"
        return problem(name, f"{source} publishes it, nothing came", fix)
    try:
        needed.check(heard.message, needed.kinds[name], name)
    except QvlaError as error:
        return failed(name, error)
    return _timeliness(name, source, heard, needed.max_age_s, _on_sim_time(graph))


def _subscribers(graph: Graph, name: str) -> set[str]:
    return {endpoint.node for endpoint in graph.topics.get(name, Topic((), ())).subscriptions}


def _timeliness(
    name: str, source: str, heard: Heard, max_age_s: float, on_sim_time: bool
) -> Finding:
    text = f"from {source}"
    if heard.age_s != heard.age_s:  # no stamp
        return ok(name, text)
    text += f", {heard.count / heard.listened_s:.1f} Hz"
    if on_sim_time:
        return ok(name, f"{text}, stamped in simulated time")
    text += f", {1e3 * heard.age_s:.0f} ms old"
    if heard.age_s > max_age_s or heard.age_s < -MAX_LEAD_S:
        fix = (
            "synchronise the clocks (chrony, PTP), let the driver stamp with system "
            "time, or set use_sim_time"
        )
        return problem(name, f"{text}: the policy node would not take it", fix)
    return ok(name, text)


def _on_sim_time(graph: Graph) -> bool:
    return CLOCK in graph.topics and bool(graph.topics[CLOCK].publishers)


def _clock(graph: Graph) -> Iterator[Finding]:
    clock = graph.topics.get(CLOCK, Topic((), ()))
    followers = {endpoint.node for endpoint in clock.subscriptions}
    policies = policy_nodes(graph.topics)
    if len(clock.publishers) > 1:
        nodes = ", ".join(sorted(publisher.node for publisher in clock.publishers))
        yield problem(
            CLOCK,
            f"{len(clock.publishers)} publishers: {nodes}",
            "stop all but one: time jumps between them",
        )
    elif followers & set(policies) and not clock.publishers:
        yield problem(
            CLOCK,
            "the policy uses simulated time, nobody publishes it",
            "set use_sim_time:=false, or start it",
        )
    elif clock.publishers and set(policies) - followers:
        node = ", ".join(sorted(set(policies) - followers))
        yield warning(
            CLOCK,
            f"simulated time is published, {node} does not use it",
            "set use_sim_time:=true for it",
        )
    else:
        yield ok(CLOCK, "simulated time" if clock.publishers else "system time")


def _mismatches(graph: Graph) -> Iterator[Finding]:
    about = "QoS"
    pairs = 0
    for name, topic in sorted(graph.topics.items()):
        if name in _IGNORED:
            continue
        for publisher in topic.publishers:
            for subscription in topic.subscriptions:
                pairs += 1
                reason = incompatibility(publisher, subscription)
                if reason is not None:
                    fix = (
                        "make them agree: types by remapping, QoS in either node or by "
                        "its qos_overrides parameters"
                    )
                    yield problem(
                        name, f"{subscription.node} does not hear {publisher.node}: {reason}", fix
                    )
    yield ok(about, f"{pairs} pairs of publisher and subscription looked at")
