"""Chooses gates from scores, and measures what was chosen where samples are at hand.

`qvla gates` and recipes share it. Imports torch only where something is measured.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qvla_offline.gates.assign import assign_gates
from qvla_offline.gates.files import Gates
from qvla_offline.gates.joint import assign_jointly, require_joint
from qvla_offline.gates.measured import keep_best, require_measurable, without_idle_widths
from qvla_offline.gates.options import MEASURED_SAMPLES, Budget
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity.store import Sensitivity
from qvla_ros.errors import QvlaWarning

if TYPE_CHECKING:
    from qvla_offline.sensitivity.options import SensitivityOptions


@dataclass(frozen=True)
class Measuring:
    """The policy and the samples on which gates are measured.

    options: as it was scored. folder: for activations that exceed the memory.
    """

    checkpoint: Path
    calibration: Path
    options: SensitivityOptions
    folder: Path


def choose_gates(
    sensitivity: Sensitivity,
    budget: Budget,
    scheme: QuantizationScheme,
    sources: Mapping[str, str],
    measuring: Measuring | None,
    joint_rounds: int = 0,
    measured_samples: int | None = None,
) -> Gates:
    """Returns the gates of `budget`, the best of those that were measured.

    measuring: None measures nothing. joint_rounds, measured_samples: see GatesOptions; where no
    number is named and the calibration set holds no sample behind the scored ones, a warning says
    that nothing was measured.
    """
    optimal = budget.method == "optimal"
    require_joint(joint_rounds, sensitivity.method, budget)
    require_measurable(measured_samples or 0, budget)
    if optimal and sensitivity.columns:
        budget = without_idle_widths(budget, sensitivity.columns, scheme)
    if joint_rounds and measuring is not None:
        from qvla_offline.sensitivity.measures import joint_measure

        measure = joint_measure(
            measuring.checkpoint, measuring.calibration, measuring.options, measuring.folder
        )
        gates = assign_jointly(sensitivity, budget, scheme, measure, joint_rounds, sources)
    else:
        gates = assign_gates(sensitivity, budget, scheme, sources)
    if measuring is None or not optimal or measured_samples == 0:
        return gates
    return _best_measured(gates, sensitivity, budget, scheme, measuring, measured_samples)


def _best_measured(
    gates: Gates,
    sensitivity: Sensitivity,
    budget: Budget,
    scheme: QuantizationScheme,
    measuring: Measuring,
    asked: int | None,
) -> Gates:
    """Returns the best of `gates` and its rivals on the samples behind the scored ones."""
    from qvla_offline.sensitivity.inputs import NoUnseenSamples
    from qvla_offline.sensitivity.measures import unseen_measure

    try:
        whole, count = unseen_measure(
            measuring.checkpoint,
            measuring.calibration,
            measuring.options,
            MEASURED_SAMPLES if asked is None else asked,
            measuring.folder,
        )
    except NoUnseenSamples as error:
        if asked is not None:
            raise
        warnings.warn(
            f"gates: not compared with one width everywhere. {error}", QvlaWarning, stacklevel=2
        )
        return gates
    return keep_best(gates, sensitivity, budget, scheme, whole, count)
