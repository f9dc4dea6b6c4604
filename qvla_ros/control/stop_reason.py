"""The reasons why commands ended."""

from __future__ import annotations

from enum import Enum


class StopReason(Enum):
    """The names are what users read in PolicyStatus, so they are lower case.

    The texts name the limits by the node's parameters.
    """

    stale_input = "no complete observation (images, joint states, pose) newer than max_image_age_s"
    bad_input = "an input cannot be used: its size, encoding, names, frame or numbers are wrong"
    clock_jump = "the clocks of ROS and of the machine parted by more than max_clock_jump_s"
    late_inference = "an inference took longer than inference_timeout_s"
    unused = "armed for max_idle_s without a plan: no instruction came, or no chunk for it"
    crowded = (
        "a camera, ~/enable, ready_topic or a command topic has a second publisher "
        "(sole_publishers)"
    )
    inference_error = "the inference failed, or its chunk cannot be executed"
    plan_exhausted = "the plan ended more than max_command_age_s ago"
    stalled = "this process stood still for max_stall_s, or heard nothing for so long"
    deadman_lost = "the deadman was released, or silent for deadman_timeout_s"
    robot_not_ready = (
        "ready_topic said that the robot takes no commands, or nobody publishes it any more"
    )
    tracking_error = (
        "the command leads the measured state by more than max_linear_lead or max_angular_lead_rad"
    )
    not_following = (
        "the arm does not move as it is commanded: over following_window_s it made less than half "
        "of the way, more than one and a half times it, or another way"
    )
    bad_measurement = (
        "the measured state (joint states, pose) has numbers that are not finite or no rotation, "
        "was somewhere else at once (see measured_velocity_margin), or has not come for "
        "max_image_age_s"
    )
    internal_error = "the control thread failed"
    disarmed = "disarmed by hand"
    cancelled = "the task was cancelled"
    finished = "the task ended"
    deactivated = "the node was deactivated"
    shutdown = "the node is shutting down"
