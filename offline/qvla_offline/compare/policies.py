"""The policies of a comparison: what each weighs, and how far its actions are from float's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from qvla_offline.calibration import calibration_sha256
from qvla_offline.checkpoints.targets import quantization_targets, unexecuted_targets
from qvla_offline.compare.bundles import identity
from qvla_offline.compare.starts import FLOAT
from qvla_offline.error.action_error import ActionError
from qvla_offline.error.comparison import compare
from qvla_offline.error.held_out import HeldOut
from qvla_offline.error.subjects import Subject, Subjects
from qvla_offline.fingerprint import checkpoint_sha256, value_sha256
from qvla_offline.sensitivity.hessian import columns
from qvla_ros.atomic import atomic_file

CACHE = "errors.json"


@dataclass(frozen=True)
class ComparedPolicy:
    """One row of a comparison.

    name: METHOD@BUDGET puts it on the line of its method in figures. nominal_bits, stored_bits: of
    a weight, with scales, over the layers that are quantized and executed; quantized_bytes: of
    these layers. None where they are not known. error: None for the float policy. bundle_id,
    weight_bytes (of the whole policy): where it was run in closed loop.
    """

    name: str
    kind: str
    nominal_bits: float | None
    stored_bits: float | None
    quantized_bytes: int | None
    error: ActionError | None
    bundle_id: str | None = None
    weight_bytes: int | None = None

    @property
    def method(self) -> str:
        return self.name.rpartition("@")[0] or self.name


def measured_policies(
    subjects: Sequence[Subject], made_by: Subjects, held_out: HeldOut, folder: Path
) -> list[ComparedPolicy]:
    """The float policy and every subject with its action error, which `folder` keeps."""
    errors = _errors(subjects, made_by, held_out, folder / CACHE)
    weights = _executed_weights(made_by)
    float_policy = ComparedPolicy(FLOAT, FLOAT, 16.0, 16.0, 2 * weights, None)
    return [
        float_policy,
        *(_row(subject, error, weights) for subject, error in zip(subjects, errors, strict=True)),
    ]


def _row(subject: Subject, error: ActionError, weights: int) -> ComparedPolicy:
    stored = subject.bits_per_weight.get("stored")
    return ComparedPolicy(
        subject.name,
        subject.kind,
        subject.bits_per_weight.get("nominal"),
        stored,
        None if stored is None else round(stored * weights / 8),
        error,
    )


def _errors(
    subjects: Sequence[Subject], made_by: Subjects, held_out: HeldOut, cache: Path
) -> list[ActionError]:
    """The error of each subject; those that an earlier run has measured are read from `cache`."""
    observed = [
        calibration_sha256(held_out.path, len(held_out.samples)),
        checkpoint_sha256(made_by.checkpoint),
    ]
    keys = [value_sha256([identity(subject, made_by), observed]) for subject in subjects]
    known: dict[str, dict[str, Any]] = json.loads(cache.read_text()) if cache.is_file() else {}
    missing = {key: s for key, s in zip(keys, subjects, strict=True) if key not in known}
    if missing:
        measured = compare(list(missing.values()), made_by, held_out)
        known |= {key: asdict(one.error) for key, one in zip(missing, measured, strict=True)}
        with atomic_file(cache) as temporary:
            temporary.write_text(json.dumps(known, indent=1, allow_nan=False) + "\n")
    return [read_error(known[key]) for key in keys]


def read_error(entry: dict[str, Any]) -> ActionError:
    """The inverse of `asdict`."""
    error = ActionError(**entry)
    return replace(error, by_dimension=tuple(error.by_dimension))


def _executed_weights(made_by: Subjects) -> int:
    """Number of weights in the layers that are quantized and executed."""
    model = made_by.open().model
    idle = unexecuted_targets(model)
    return sum(
        module.weight.shape[0] * columns(module)
        for name, module in quantization_targets(model).items()
        if name not in idle
    )
