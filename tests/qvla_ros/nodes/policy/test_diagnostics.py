"""A snapshot in diagnostic terms: errors, warnings, and the numbers that are published."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from qvla.msg import PolicyStatus

from qvla_ros.nodes.policy.diagnostics import ERROR, OK, SUSTAINED_MISSES, WARN, statuses
from qvla_ros.nodes.policy.inputs.stream_statistics import StreamHealth
from qvla_ros.nodes.policy.snapshot import Snapshot


def report(
    now: Snapshot, before: Snapshot | None = None, sensors: Any = None
) -> dict[str, DiagnosticStatus]:
    return {status.name: status for status in statuses(now, before, 1.0, sensors or {})}


def values(status: DiagnosticStatus) -> dict[str, str]:
    return {pair.key: pair.value for pair in status.values}


def test_a_node_that_is_well_has_nothing_but_ok_and_one_status_a_concern(well: Snapshot) -> None:
    found = report(well)
    assert set(found) == {
        "policy",
        "input /x/joint_states",
        "inference",
        "safety chain",
        "control loop",
        "GPU",
    }
    assert {status.level for status in found.values()} == {OK}
    assert values(found["inference"])["p50 (ms)"] == "20.00"
    assert values(found["inference"])["p99 (ms)"] == "29.80"
    assert values(found["inference"])["last (ms)"] == "30.00"
    assert values(found["input /x/joint_states"]) == {"rate (Hz)": "100.0", "age (s)": "0.010"}
    assert values(found["policy"])["bundle"] == well.bundle_id
    assert values(found["policy"])["engine"] == well.engine


@pytest.mark.parametrize(
    ("state", "level"),
    [
        (PolicyStatus.RUNNING, OK),
        (PolicyStatus.INACTIVE, OK),
        (PolicyStatus.WAITING, WARN),
        (PolicyStatus.FAULT, ERROR),
    ],
)
def test_the_level_of_the_node_follows_its_state(well: Snapshot, state: int, level: bytes) -> None:
    status = report(replace(well, state=state, reason="because"))["policy"]
    assert status.level == level
    assert "because" in status.message


def test_commands_that_ended_are_a_warning_until_armed_again(well: Snapshot) -> None:
    assert report(replace(well, armed=False, stop_reason="deadman_lost"))["policy"].level == WARN
    assert (
        "deadman_lost"
        in report(replace(well, armed=False, stop_reason="deadman_lost"))["policy"].message
    )
    assert report(replace(well, armed=False))["policy"].level == OK


@pytest.mark.parametrize("age_s", [1.5, float("inf"), float("nan")])
def test_an_input_that_is_too_old_or_never_came_is_an_error(well: Snapshot, age_s: float) -> None:
    streams = (*well.streams, StreamHealth("/x/camera", 0.0, age_s))
    found = report(replace(well, streams=streams))
    assert found["input /x/camera"].level == ERROR
    assert found["input /x/joint_states"].level == OK


def test_one_late_chunk_is_a_warning_once_and_a_row_of_them_an_error(well: Snapshot) -> None:
    once = replace(well, deadline_misses=1)
    assert report(once)["inference"].level == WARN
    assert report(once, before=once)["inference"].level == OK
    row = replace(
        well, deadline_misses=SUSTAINED_MISSES, consecutive_deadline_misses=SUSTAINED_MISSES
    )
    assert report(row, before=row)["inference"].level == ERROR
    almost = replace(well, deadline_misses=9, consecutive_deadline_misses=SUSTAINED_MISSES - 1)
    assert report(almost, before=almost)["inference"].level == WARN


def test_interventions_are_counted_by_stage_and_warned_of_when_they_are_new(well: Snapshot) -> None:
    now = replace(well, interventions={"finite": 0, "workspace": 3})
    status = report(now)["safety chain"]
    assert (status.level, values(status)) == (WARN, {"finite": "0", "workspace": "3"})
    assert "3 interventions" in status.message
    assert report(now, before=now)["safety chain"].level == OK
    # counters begin again with an activation
    assert report(well, before=now)["safety chain"].level == OK


def test_a_skipped_deadline_is_a_warning_and_a_slow_loop_an_error(well: Snapshot) -> None:
    loop = well.loop
    assert loop is not None
    assert report(replace(well, loop=replace(loop, overruns=2)))["control loop"].level == WARN
    assert report(replace(well, loop=replace(loop, p50_ms=20.0)))["control loop"].level == ERROR
    assert "control loop" not in report(replace(well, loop=None))


def test_before_the_first_inference_nothing_is_said_to_be_in_time(well: Snapshot) -> None:
    status = report(replace(well, inference_ms=(), stage_ms={}), before=None)["inference"]
    assert (status.level, status.message) == (OK, "none yet")
    assert values(status)["p99 (ms)"] == "nan"


def test_what_is_not_measured_is_said_to_be_unmeasured(well: Snapshot) -> None:
    assert report(well)["GPU"].message.startswith("unmeasured")
    status = report(well, sensors={"gpu-thermal (°C)": "51.5"})["GPU"]
    assert values(status) == {"gpu-thermal (°C)": "51.5"}
    assert "unmeasured" not in status.message


def test_an_input_from_the_future_is_an_error_that_names_the_clocks(well: Snapshot) -> None:
    streams = (*well.streams, StreamHealth("/x/camera", 30.0, -100.0))
    status = report(replace(well, streams=streams))["input /x/camera"]
    assert status.level == ERROR
    assert "100.0 s in the future: check use_sim_time" in status.message
