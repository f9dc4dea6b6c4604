"""Who hears whom in a ROS graph, by the rules of DDS, and which topics belong to a policy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qvla_ros.ros_graph import CHUNK_TYPE, Endpoint, Topic, incompatibility, policy_nodes, topics_of

OFFER = Endpoint("/camera", "sensor_msgs/msg/Image", reliable=False, transient_local=False)
WISH = replace(OFFER, node="/x/policy")


@pytest.mark.parametrize(
    ("offered", "wanted", "message"),
    [
        ({}, {}, None),
        ({"reliable": True, "transient_local": True, "deadline_s": 0.1}, {}, None),
        ({}, {"reliable": True}, "best effort"),
        ({"reliable": True}, {"reliable": True}, None),
        ({}, {"transient_local": True}, "volatile"),
        ({}, {"deadline_s": 0.1}, "every 0.1 s"),
        ({"deadline_s": 0.2}, {"deadline_s": 0.1}, "every 0.1 s"),
        ({"deadline_s": 0.1}, {"deadline_s": 0.1}, None),
        ({"kind": "sensor_msgs/msg/CompressedImage"}, {}, "CompressedImage"),
    ],
)
def test_a_subscription_gets_no_more_than_is_offered(offered, wanted, message):
    found = incompatibility(replace(OFFER, **offered), replace(WISH, **wanted))
    assert (found is None) if message is None else (message in found)


def test_a_policy_is_who_publishes_chunks_and_its_topics_are_what_it_hears_and_says():
    chunk = Endpoint("/x/policy", CHUNK_TYPE, True, False)
    log = Endpoint("/x/policy", "rcl_interfaces/msg/Log", True, True)
    feedback = Endpoint("/x/policy", "qvla/action/ExecuteInstruction_FeedbackMessage", True, False)
    topics = {
        "/x/camera/wrist/image_raw": Topic((OFFER,), (WISH,)),
        "/other/image": Topic((OFFER,), ()),
        "/x/policy/action_chunk": Topic((chunk,), ()),
        "/x/policy/execute/_action/feedback": Topic((feedback,), ()),
        "/rosout": Topic((log,), ()),
    }
    assert policy_nodes(topics) == ["/x/policy"]
    assert topics_of(topics, ["/x/policy"]) == [
        "/x/camera/wrist/image_raw",
        "/x/policy/action_chunk",
    ]
    assert topics_of(topics, ["/camera"]) == ["/other/image", "/x/camera/wrist/image_raw"]
