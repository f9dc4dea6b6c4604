"""The doctor's findings about a running graph follow from its endpoints and its messages."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from qvla_ros.bundle import load_bundle
from qvla_ros.doctor.findings import Finding
from qvla_ros.doctor.graph import Graph, Heard
from qvla_ros.doctor.graph_checks import graph_findings
from qvla_ros.doctor.needed_inputs import needed_inputs, unused_remaps
from qvla_ros.messages.kinds import IMAGE, JOINTS, POSE, TEXT
from qvla_ros.ros_graph import CHUNK_TYPE, Endpoint, Topic

WRIST = "/arm/camera/wrist/image_raw"
POLICY = "/arm/policy"


def status(**changes: Any) -> SimpleNamespace:
    return SimpleNamespace(
        **{
            "state": 1,
            "FAULT": 2,
            "WAITING": 0,
            "armed": True,
            "bundle_id": "",
            "reason": "",
            **changes,
        }
    )


def image(**changes: Any) -> SimpleNamespace:
    fields = {"height": 32, "width": 32, "encoding": "rgb8", "step": 96, "data": bytes(3072)}
    return SimpleNamespace(**{**fields, **changes})


@pytest.fixture
def bundle(bundle_dir):
    return load_bundle(bundle_dir)


@pytest.fixture
def good(bundle) -> Graph:
    """A robot and a policy as they should be."""
    pose = SimpleNamespace(
        header=SimpleNamespace(frame_id="world"),
        pose=SimpleNamespace(
            position=SimpleNamespace(x=0.0, y=0.0, z=0.0),
            orientation=SimpleNamespace(x=0.0, y=0.0, z=0.0, w=1.0),
        ),
    )
    fingers = SimpleNamespace(name=["finger_joint1", "finger_joint2"], position=[0.0, 0.0])
    messages = {
        "/arm/camera/agentview/image_raw": (IMAGE, image()),
        WRIST: (IMAGE, image()),
        "/arm/joint_states": (JOINTS, fingers),
        "/arm/ee_pose": (POSE, pose),
        "/arm/instruction": (TEXT, SimpleNamespace(data="go")),
    }
    topics = {}
    heard = {}
    for name, (kind, message) in messages.items():
        latched = kind == TEXT
        topics[name] = Topic(
            (Endpoint("/robot", kind, True, latched),), (Endpoint(POLICY, kind, latched, latched),)
        )
        heard[name] = Heard(message, 60, 2.0, float("nan") if latched else 0.012)
    topics["/arm/policy/action_chunk"] = Topic((Endpoint(POLICY, CHUNK_TYPE, True, False),), ())
    return Graph(topics, heard, {POLICY: status(bundle_id=bundle.bundle_id)})


JOINTS_TOPIC = "/arm/joint_states"


def judged(graph: Graph, bundle) -> list[Finding]:
    found = list(graph_findings(graph, needed_inputs(bundle, "/arm"), bundle))
    assert all(bool(finding.fix) == (finding.status != "ok") for finding in found)
    return found


def wrong(graph: Graph, bundle) -> dict[str, Finding]:
    return {finding.about: finding for finding in judged(graph, bundle) if finding.status != "ok"}


def changed(
    graph: Graph, topic: str, publishers: list[Endpoint] | None = None, **heard: Any
) -> Graph:
    """The graph with other publishers of a topic, or with another message on it."""
    topics = dict(graph.topics)
    received = dict(graph.heard)
    if publishers is not None:
        topics[topic] = replace(topics.get(topic, Topic((), ())), publishers=tuple(publishers))
    if heard:
        received[topic] = replace(received[topic], **heard)
    return replace(graph, topics=topics, heard=received)


def test_a_good_graph_has_nothing_to_mend(good, bundle):
    found = judged(good, bundle)
    assert {finding.status for finding in found} == {"ok"}
    texts = {finding.about: finding.text for finding in found}
    assert texts[WRIST] == "from /robot, 30.0 Hz, 12 ms old"
    assert texts["/arm/instruction"] == "from /robot"
    assert f"running, armed, bundle {bundle.bundle_id}" in texts[f"policy node {POLICY}"]


def test_a_remapped_input_is_looked_at_where_it_is(good, bundle):
    topics = dict(good.topics)
    heard = dict(good.heard)
    topics["/wrist/image"] = topics.pop(WRIST)
    heard["/wrist/image"] = replace(heard.pop(WRIST), age_s=1.5)
    graph = replace(good, topics=topics, heard=heard)
    assert "--remaps_file" in wrong(graph, bundle)[WRIST].fix
    inputs = needed_inputs(bundle, "/arm", {"camera/wrist/image_raw": "/wrist/image"})
    found = {
        finding.about: finding
        for finding in graph_findings(graph, inputs, bundle)
        if finding.status != "ok"
    }
    assert found.keys() == {"/wrist/image"}
    assert "1500 ms old" in found["/wrist/image"].text


def test_what_a_robots_parameters_ask_for_is_looked_at(good, bundle):
    blind = replace(bundle, proprioception=None)
    assert not [
        needed.name
        for needed in needed_inputs(blind, "/arm")
        if needed.name in ("/arm/ee_pose", JOINTS_TOPIC)
    ]
    given = {
        "output": "twist",
        "max_image_age_s": 0.01,
        "gripper_joint": "finger",
        "gripper_max": 0.04,
    }
    commanding = needed_inputs(blind, "/arm", {}, given)
    assert {"/arm/ee_pose", JOINTS_TOPIC} < {needed.name for needed in commanding}
    found = {
        finding.about: finding.text
        for finding in graph_findings(good, commanding, blind)
        if finding.fix
    }
    assert "12 ms old: the policy node would not take it" in found[WRIST]
    assert "finger" in found[JOINTS_TOPIC]
    by_tf = {
        needed.name for needed in needed_inputs(blind, "/arm", {}, {**given, "pose_source": "tf"})
    }
    assert "/arm/ee_pose" not in by_tf


def test_commands_that_no_controller_receives_are_reported(good, bundle):
    twist = "geometry_msgs/msg/TwistStamped"
    command = Endpoint(POLICY, twist, True, False)
    servo = Endpoint("/servo", twist, True, False)
    shown = Endpoint(POLICY, "trajectory_msgs/msg/JointTrajectory", True, False)
    topics = {**good.topics, "/arm/policy/predicted_trajectory": Topic((shown,), ())}
    heard = Topic((command,), (servo,))
    unheard = Topic((command,), ())
    assert wrong(replace(good, topics={**topics, "/servo/twist": heard}), bundle) == {}
    found = wrong(replace(good, topics={**topics, "/servo/twist": unheard}), bundle)
    assert found.keys() == {"/servo/twist"}
    assert "output_topic" in found["/servo/twist"].fix


def test_a_topic_without_publisher_is_reported_with_those_that_might_be_meant(good, bundle):
    camera = Endpoint("/camera", IMAGE, False, False)
    graph = changed(changed(good, WRIST, []), "/camera/color/image_raw", [camera])
    found = wrong(graph, bundle)
    assert found.keys() == {WRIST}
    assert (found[WRIST].status, found[WRIST].text) == ("problem", "nobody publishes it")
    assert "/camera/color/image_raw" in found[WRIST].fix


@pytest.mark.parametrize(
    ("topic", "publisher", "words"),
    [
        ("/arm/instruction", Endpoint("/ui", TEXT, True, False), "volatile"),
        ("/arm/instruction", Endpoint("/ui", TEXT, False, True), "best effort"),
        (
            WRIST,
            Endpoint("/camera", "sensor_msgs/msg/CompressedImage", True, False),
            "CompressedImage",
        ),
    ],
)
def test_what_a_policy_cannot_hear_is_a_problem(good, bundle, topic, publisher, words):
    found = wrong(changed(good, topic, [publisher]), bundle)
    assert found.keys() == {topic}
    assert found[topic].status == "problem"
    assert words in found[topic].text


def test_any_pair_that_does_not_hear_each_other_is_named(good, bundle):
    reader = Endpoint("/viewer", "std_msgs/msg/Float64", True, False)
    topics = {
        **good.topics,
        "/force": Topic((replace(reader, node="/sensor", reliable=False),), (reader,)),
    }
    found = wrong(replace(good, topics=topics), bundle)
    assert found.keys() == {"/force"}
    assert found["/force"].text.startswith(
        "/viewer does not hear /sensor: the publisher is best effort"
    )


@pytest.mark.parametrize(
    ("topic", "change", "words"),
    [
        (WRIST, {"message": image(width=64, step=192)}, "64x32"),
        (WRIST, {"message": image(encoding="16UC1")}, "16UC1"),
        (WRIST, {"age_s": 1.5}, "1500 ms old"),
        (WRIST, {"age_s": -0.2}, "-200 ms old"),
        (
            "/arm/joint_states",
            {"message": SimpleNamespace(name=["elbow"], position=[0.0])},
            "finger_joint1",
        ),
    ],
)
def test_messages_that_the_policy_would_not_take_are_problems(good, bundle, topic, change, words):
    found = wrong(changed(good, topic, **change), bundle)
    assert found.keys() == {topic}
    assert found[topic].status == "problem"
    assert words in found[topic].text


def test_a_publisher_that_says_nothing_is_a_problem(good, bundle):
    heard = {name: value for name, value in good.heard.items() if name != WRIST}
    assert "nothing came" in wrong(replace(good, heard=heard), bundle)[WRIST].text


@pytest.mark.parametrize(
    ("state", "level", "words"),
    [
        (status(state=2, reason="inference failed"), "problem", "fault, armed.*inference failed"),
        (status(state=0, reason="nothing received yet"), "warning", "nothing received yet"),
        (status(bundle_id="feedfeedfeedfeed"), "warning", "not the bundle"),
        (None, "warning", "says nothing"),
    ],
)
def test_the_state_of_a_policy_is_judged(good, bundle, state, level, words):
    [found] = wrong(replace(good, states={POLICY: state}), bundle).values()
    assert found.status == level
    assert re.search(words, found.text)


def test_without_a_policy_node_its_topics_are_judged_as_they_will_be_needed(good, bundle):
    topics = {n: replace(t, subscriptions=()) for n, t in good.topics.items() if "policy" not in n}
    assert {f.about: f.status for f in wrong(Graph(topics, good.heard), bundle).values()} == {
        "policy node": "warning"
    }


def test_a_remapped_policy_is_judged_by_what_it_subscribes_to(good, bundle):
    camera = Endpoint("/robot", IMAGE, True, False)
    topics = {**good.topics, "/d405/image": Topic((), (Endpoint(POLICY, IMAGE, False, False),))}
    topics[WRIST] = Topic((camera,), ())
    found = wrong(replace(good, topics=topics), bundle)
    assert {about: finding.status for about, finding in found.items()} == {
        WRIST: "warning",
        "/d405/image": "problem",
    }


CLOCK_USER = Endpoint(POLICY, "rosgraph_msgs/msg/Clock", False, False)
SIMULATOR = replace(CLOCK_USER, node="/simulator")


@pytest.mark.parametrize(
    ("clock", "level", "words"),
    [
        (Topic((), (CLOCK_USER,)), "problem", "nobody publishes"),
        (Topic((SIMULATOR,), ()), "warning", "does not use it"),
        (
            Topic((SIMULATOR, replace(SIMULATOR, node="/player")), (CLOCK_USER,)),
            "problem",
            "2 publishers",
        ),
    ],
)
def test_clocks_that_do_not_fit_are_reported(good, bundle, clock, level, words):
    found = wrong(replace(good, topics={**good.topics, "/clock": clock}), bundle)
    assert found.keys() == {"/clock"}
    assert found["/clock"].status == level
    assert words in found["/clock"].text


def test_simulated_stamps_are_not_compared_with_the_wall_clock(good, bundle):
    topics = {**good.topics, "/clock": Topic((SIMULATOR,), (CLOCK_USER,))}
    assert wrong(changed(replace(good, topics=topics), WRIST, age_s=1.7e9), bundle) == {}


def test_two_publishers_of_what_the_policy_reads_are_named(good, bundle):
    two = [Endpoint("/robot", JOINTS, True, False), Endpoint("/gripper", JOINTS, True, False)]
    finding = wrong(changed(good, JOINTS_TOPIC, two), bundle)[JOINTS_TOPIC]
    assert finding.status == "warning"
    assert finding.text == "/robot, /gripper publish it: of each joint the newest state counts"
    poses = [Endpoint(name, POSE, True, False) for name in ("/robot", "/tracker")]
    by_turns = wrong(changed(good, "/arm/ee_pose", poses), bundle)["/arm/ee_pose"]
    assert by_turns.text == "/robot, /tracker publish it: the policy takes them by turns"
    twice = wrong(changed(good, JOINTS_TOPIC, [two[0], two[0]]), bundle)[JOINTS_TOPIC]
    assert twice.text.startswith("2 x /robot publish it")
    texts = [Endpoint(name, TEXT, True, True) for name in ("/robot", "/operator")]
    assert wrong(changed(good, "/arm/instruction", texts), bundle) == {}


def test_two_publishers_of_enable_are_named(good, bundle):
    enable = "/arm/policy/enable"
    kind = "std_msgs/msg/Bool"
    publishers = tuple(Endpoint(name, kind, True, False) for name in ("/pad", "/pedal"))
    topic = Topic(publishers, (Endpoint(POLICY, kind, False, False),))
    found = wrong(replace(good, topics={**good.topics, enable: topic}), bundle)
    assert found[enable].text.startswith("/pad, /pedal publish it")


@pytest.mark.parametrize(
    "kind", ["geometry_msgs/msg/PoseStamped", "std_msgs/msg/Float64MultiArray"]
)
def test_a_second_commander_is_a_problem(good, bundle, kind):
    listener = (Endpoint("/controller", kind, True, False),)
    alone = (Endpoint(POLICY, kind, True, False),)
    for publishers in (alone, (*alone, Endpoint("/joystick", kind, True, False))):
        topics = {**good.topics, "/target": Topic(publishers, listener)}
        found = wrong(replace(good, topics=topics), bundle)
        assert ("/target" in found) == (len(publishers) == 2)
    assert found["/target"].status == "problem"
    assert found["/target"].text == f"{POLICY}, /joystick command on it"


def test_two_nodes_of_one_name_are_named(good, bundle):
    nodes = (POLICY, POLICY, "/robot", "/rviz", "/rviz")
    found = wrong(replace(good, nodes=nodes), bundle)
    assert found[f"node {POLICY}"].status == "problem"
    assert found["node /rviz"].status == "warning"
    assert found["node /rviz"].text.startswith("2 nodes have this name")
    assert len(found) == 2


def test_a_node_whose_name_does_not_arrive_is_a_problem(good, bundle):
    unknown = "_NODE_NAMESPACE_UNKNOWN_/_NODE_NAME_UNKNOWN_"
    topics = {"/chatter": Topic((Endpoint(unknown, TEXT, True, False),), ())}
    found = wrong(replace(good, topics={**good.topics, **topics}), bundle)
    assert "on /chatter" in found["nodes"].text
    assert "users" in found["nodes"].fix


def test_a_remap_of_no_input_is_found(bundle):
    """A misspelled one remaps nothing, in silence."""
    good = {"joint_states": "/a", "camera/wrist/image_raw": "/b", "~/command": "/c", "/d": "/e"}
    assert unused_remaps(good, bundle) == unused_remaps(good, None) == []
    bad = {"joint_state": "/a", "camera/wrist": "/b", "camera/front/image_raw": "/c"}
    assert unused_remaps(bad, bundle) == list(bad)
    assert unused_remaps(bad, None) == ["joint_state", "camera/wrist"]
