"""A snapshot of the policy node from what it has in its present state."""

from __future__ import annotations

from dataclasses import replace

from qvla.msg import PolicyStatus

from qvla_ros.nodes.policy.active import Active, NodeCounts
from qvla_ros.nodes.policy.commands import Commands
from qvla_ros.nodes.policy.configured import Configured
from qvla_ros.nodes.policy.snapshot import Snapshot
from qvla_ros.parameters.policy import PolicyParameters

NOT_ACTIVE = "not active: call change_state, or start with autostart:=true"


def describe(
    parameters: PolicyParameters,
    counts: NodeCounts,
    commands: Commands,
    configured: Configured | None,
    active: Active | None,
) -> Snapshot:
    """Describes the node's present state. From any thread."""
    state, reason = (PolicyStatus.INACTIVE, NOT_ACTIVE) if active is None else active.state()
    figures = commands.figures()
    stop = figures.last_stop
    if state == PolicyStatus.RUNNING and figures.reason is not None and figures.detail:
        reason = f"commands ended, {figures.reason.name}: {figures.detail}"
    remaining_s, upcoming = commands.plan_ahead()
    now = Snapshot(
        state=state,
        reason=reason,
        armed=commands.armed,
        stop_reason="" if figures.reason is None else figures.reason.name,
        backend=parameters.model.backend,
        deadline_misses=counts.misses,
        consecutive_deadline_misses=counts.misses_in_a_row,
        chunks_published=counts.published,
        observations_dropped=counts.dropped,
        commands_sent=figures.commands_sent,
        interventions=figures.interventions,
        loop=commands.health(),
        remaining_s=remaining_s,
        upcoming=upcoming,
    )
    if stop is not None:
        now = replace(
            now,
            stop_stamp_ns=stop.stamp_ns,
            stop_delay_s=stop.delay_s,
            stop_delay_ticks=stop.delay_ticks,
        )
    if configured is not None:
        bundle = configured.policy.bundle
        now = replace(
            now,
            bundle_id=bundle.bundle_id,
            engine=configured.policy.engine.name,
            step_dt_s=bundle.actions.control_period_s,
        )
    if active is not None:
        inference = active.inference
        now = replace(
            now,
            streams=active.inputs.streams(),
            inference_ms=inference.inference_ms(),
            stage_ms=inference.stage_ms,
            observations_dropped=counts.dropped + inference.dropped,
        )
    return now
