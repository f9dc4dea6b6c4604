"""The doctor hears a robot's messages in a real graph, and leaves."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from sensor_msgs.msg import JointState

from qvla_ros.bundle import load_bundle
from qvla_ros.doctor.graph_checks import graph_findings
from qvla_ros.doctor.needed_inputs import needed_inputs
from qvla_ros.nodes.tools.graph_doctor import Listener, check_messages, read_graph

if TYPE_CHECKING:
    from conftest import Robot


def test_a_robots_topics_are_found_heard_and_judged(robot: Robot, bundle_dir: Path) -> None:
    check_messages()
    stop = threading.Event()

    def publish() -> None:
        robot.tell("pick up the milk")
        while not stop.is_set():
            robot.publish(cameras=1)
            robot.spin(0.1)

    thread = threading.Thread(target=publish)
    thread.start()
    bundle = load_bundle(bundle_dir)
    inputs = needed_inputs(bundle, "/x")
    try:
        graph = read_graph(inputs, discover_s=1.5, listen_s=1.5)
    finally:
        stop.set()
        thread.join()
    agentview, wrist = (f"/x/camera/{camera.name}/image_raw" for camera in bundle.cameras)
    assert [publisher.node for publisher in graph.topics[agentview].publishers] == ["/robot"]
    assert not graph.topics[agentview].publishers[0].reliable
    assert graph.topics["/x/instruction"].publishers[0].transient_local
    found = {finding.about: finding for finding in graph_findings(graph, inputs, bundle)}
    for topic in (agentview, "/x/joint_states", "/x/ee_pose", "/x/instruction"):
        assert found[topic].status == "ok", found[topic]
    assert found[wrist].status == "problem"
    assert found[wrist].text == "/robot publishes it, nothing came"
    assert "qvla_doctor" not in robot.node.get_node_names()


def test_joint_states_of_two_drivers_are_heard_as_one() -> None:
    listener = Listener()
    assert listener.heard(1.0) is None
    for position in (0.1, 0.2):
        listener.take(JointState(name=["elbow", "wrist"], position=[position, 0.0]))
        listener.take(JointState(name=["finger"], position=[0.04]))
    heard = listener.heard(1.0)
    assert heard is not None
    assert (list(heard.message.name), list(heard.message.position), heard.count) == (
        ["elbow", "wrist", "finger"],
        [0.2, 0.0, 0.04],
        4,
    )
