"""The record of one episode, as the bridge prints and logs it (docs/architecture.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from qvla_ros.nodes.libero_bridge.episode_run import EpisodeRun
from qvla_ros.nodes.libero_bridge.policy_link import PolicyLink
from qvla_ros.parameters.bridge import EpisodeParameters
from qvla_ros.simulation.motion import rms_jerk_m_s3
from qvla_ros.simulation.real_time import Conditions
from qvla_ros.simulation.specification import CONTROL_PERIOD_S

_ANNOUNCED = ("policy", "task_id", "init_state", "max_steps", "label")


@dataclass(frozen=True)
class Start:
    """The start of an episode, whatever the policy. conditions: in real time; None: lock-step."""

    task_id: int
    init_state: int
    conditions: Conditions | None


def key_of(
    episodes: EpisodeParameters,
    faults: Sequence[str],
    max_steps: int,
    start: Start,
    link: PolicyLink,
) -> dict[str, Any]:
    """The fields that make two episodes the same one, and in real time the label of its conditions.

    faults: in their written form; empty ones are left out. link: to the policy that runs it.
    """
    key = {
        "task_suite_name": episodes.task_suite_name,
        "task_id": start.task_id,
        "init_state": start.init_state,
        "seed": episodes.seed,
        "max_steps": max_steps,
        "policy": link.namespace,
        "bundle_id": link.status.bundle_id if link.status else "",
    }
    if start.conditions is None:
        return key
    given = [text for text in faults if text]
    return {
        **key,
        "conditions": {**asdict(start.conditions), "faults": given},
        "label": start.conditions.label,
    }


def announced(key: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a key that are printed when the episode starts."""
    return {name: key[name] for name in _ANNOUNCED if name in key}


def outcome_of(run: EpisodeRun, duration_s: float) -> dict[str, Any]:
    """The fields about the course of an episode that has run, `duration_s` by the wall clock."""
    rollout = run.rollout
    measurements = run.measurements
    return {
        "success": rollout.success,
        "reason": run.reason,
        "steps": rollout.steps,
        "duration_s": duration_s,
        "inference_ms": measurements.inference_ms,
        "stamp_to_command_ms": measurements.stamp_to_command_ms,
        "jerk_m_s3": rms_jerk_m_s3(rollout.commanded_m, CONTROL_PERIOD_S),
        **({"real_time": measurements.real_time} if measurements.real_time else {}),
    }
