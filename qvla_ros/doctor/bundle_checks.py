"""Checks that a bundle is whole, that a plan fits this machine, and that the actions agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qvla_ros.bundle import Bundle, load_bundle
from qvla_ros.doctor.environment import Machine
from qvla_ros.doctor.findings import Finding, failed, ok, problem, warning
from qvla_ros.doctor.parity import (
    Parity,
    parity_actions,
    parity_observations,
    read_parity,
    relative_difference,
)
from qvla_ros.engines import find_engine
from qvla_ros.engines.plan import list_plans
from qvla_ros.engines.tensorrt import choose_plan, mismatch, rebuild_command
from qvla_ros.errors import QvlaError
from qvla_ros.policy import Policy, load_policy
from qvla_ros.statistics import percentiles

# Largest difference as a fraction of a column's range in training. Float arithmetic in another
# order gives 1e-4, half precision 1e-2.
SAME = 1e-3
CLOSE = 3e-2
_TIMED_RUNS = 5


def bundle_findings(directory: Path) -> tuple[Bundle | None, Finding]:
    """Loads the bundle if every file of it is whole; else None, and the finding is a problem."""
    try:
        bundle = load_bundle(directory)
    except QvlaError as error:
        return None, failed("bundle", error)
    return bundle, ok(
        "bundle",
        f"{bundle.bundle_id}, {bundle.family}, {len(bundle.files)} files whole ({directory})",
    )


def plan_findings(bundle: Bundle, machine: Machine, backend: str) -> Iterator[Finding]:
    """Checks every plan of the bundle against this GPU and its TensorRT.

    A misfit is a problem only if `backend` needs a plan.
    """
    about = "TensorRT plan"
    needs_plan = find_engine(backend).needs_plan
    wrong = problem if needs_plan else warning
    if machine.compute_capability is None or not machine.tensorrt:
        lacking = "GPU" if machine.compute_capability is None else "TensorRT"
        if needs_plan:
            yield problem(about, f"no {lacking} here", "use --backend onnxruntime, or install it")
        return
    flavour, version = next(iter(machine.tensorrt.items()))  # the one that the engine takes
    try:
        plans = list_plans(bundle.directory)
        if needs_plan:
            yield ok(about, choose_plan(bundle, flavour, version, machine.compute_capability).name)
            return
    except QvlaError as error:
        yield failed(about, error)
        return
    for plan, sidecar in plans.items():
        reason = mismatch(sidecar, bundle, flavour, version, machine.compute_capability)
        fix = rebuild_command(bundle, flavour, machine.compute_capability)
        yield (
            ok(about, f"{plan.name} fits this GPU")
            if reason is None
            else wrong(about, f"{plan.name}: {reason}", fix)
        )


def policy_findings(bundle: Bundle, backend: str, options: dict[str, object]) -> Iterator[Finding]:
    """Loads the policy, compares its actions with those kept in the bundle, and times it."""
    try:
        policy = load_policy(bundle.directory, backend, **options)
    except QvlaError as error:
        yield failed(f"backend {backend}", error)
        return
    try:
        yield _parity(policy)
        yield _speed(policy)
    except QvlaError as error:
        yield failed(policy.engine.name, error)
    finally:
        policy.close()


def parity_finding(
    apart: NDArray[np.float64], names: Sequence[str], parity: Parity, engine: str, draws_noise: bool
) -> Finding:
    """Judges the difference between the policy's actions here and where it was exported.

    apart: largest difference of each column as a fraction of its range, [A]; NaN counts as largest.
    """
    about = "parity"
    worst = int(np.argmax(np.nan_to_num(apart, nan=np.inf)))
    text = (
        f"{engine}: off by up to {100 * apart[worst]:.2g} % of its range "
        f"({names[worst]}) from {parity.engine}"
    )
    if apart[worst] <= SAME:
        return ok(about, text)
    if apart[worst] <= CLOSE:
        return warning(
            about, text, "expected of half precision and of action tokens; judge it by `qvla eval`"
        )
    if draws_noise:
        return warning(
            about, f"{text}; this policy draws random numbers", "judge it by `qvla eval`"
        )
    fix = (
        "build the plan again; compare the versions of the engine, of Pillow and of "
        "simplejpeg with the other machine"
    )
    return problem(about, text, fix)


def speed_finding(inference_ms: Sequence[float], bundle: Bundle) -> Finding:
    """Judges whether a chunk is ready before the previous one ends."""
    spec = bundle.actions
    lasts_ms = 1e3 * spec.chunk_length * spec.control_period_s
    middle, longest = percentiles(inference_ms, (50, 100))
    text = (
        f"inference takes {middle:.0f} ms (at most {longest:.0f}), a chunk lasts {lasts_ms:.0f} ms"
    )
    if longest < lasts_ms:
        return ok("speed", text)
    return warning(
        "speed", text, "use a faster backend or fewer bits: the arm stops at the end of every chunk"
    )


def _parity(policy: Policy) -> Finding:
    parity = read_parity(policy.bundle)
    if parity is None:
        fix = "`qvla doctor --bundle DIR --write_parity` on a machine that is known to be right"
        return warning(
            "parity", "the bundle brings no answers to compare with (an older or a large one)", fix
        )
    apart = relative_difference(
        parity_actions(policy, parity.observations), parity, policy.bundle.statistics["action"]
    )
    draws_noise = policy.bundle.decoder.draws_noise
    return parity_finding(
        apart, policy.bundle.actions.names, parity, policy.engine.name, draws_noise
    )


def _speed(policy: Policy) -> Finding:
    observation = parity_observations(policy.bundle)[0]
    times = [policy.infer(observation).latency_ms for _ in range(_TIMED_RUNS)]
    return speed_finding([sum(stages.values()) for stages in times], policy.bundle)
