"""Compares several quantizations of one checkpoint on the same observations.

The float policy runs once.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qvla_offline.calibration import every_calibration_sha256, read_calibration
from qvla_offline.error.action_error import ActionError, action_error
from qvla_offline.error.held_out import HeldOut, require_unseen
from qvla_offline.error.subjects import Subject, Subjects
from qvla_offline.robot import LIBERO, RobotDescription
from qvla_ros.errors import QvlaError, QvlaWarning
from qvla_ros.progress import track

CALIBRATION_FILE = "calibration.jsonl"  # in a checkpoint's directory: what its steps read


@dataclass(frozen=True)
class MeasuredSubject:
    """One subject and its error."""

    subject: Subject
    error: ActionError


def compare(
    subjects: Sequence[Subject], made_by: Subjects, held_out: HeldOut
) -> list[MeasuredSubject]:
    """Measures the action error of every subject against the float policy, in order.

    Raises QvlaError naming the subject if it answers in another shape, or with numbers that are not
    finite.
    """
    reference = _checked("the float policy", made_by.float_actions(held_out.samples), None)
    measured = []
    for subject in track(subjects, "action error", total=len(subjects)):
        actions = _checked(subject.name, subject.actions(held_out.samples), reference)
        error = action_error(actions, reference, held_out.episodes)
        measured.append(MeasuredSubject(subject, error))
    return measured


def require_held_out(
    held_out: HeldOut,
    subjects: Sequence[Subject],
    made_by: Subjects,
    calibration: Sequence[Path] = (),
    robot: RobotDescription = LIBERO,
) -> None:
    """QvlaError if an observation is one that the quantization was calibrated on.

    calibration: the sets that its steps read; none: calibration.jsonl in the checkpoint's
    directory, if it is there. Gates that say the hash of their calibration set are compared by that
    too, and there is a warning if they say one and no set is there to compare with.
    """
    made_with = [subject.gates.sources for subject in subjects if subject.gates is not None]
    if made_by.statistics is not None:
        made_with.append(made_by.statistics.sources)
    known = {s["calibration_sha256"] for s in made_with if "calibration_sha256" in s}
    if known and known & every_calibration_sha256(held_out.path):
        raise QvlaError(
            "observations",
            f"{held_out.path}, a calibration set of these gates or statistics",
            "observations that no step of the quantization has read",
            "name others with --observations",
        )
    usual = made_by.checkpoint / CALIBRATION_FILE
    sets = list(calibration) or ([usual] if usual.is_file() else [])
    checkpoint = made_by.open()
    for path in sets:
        require_unseen(held_out, read_calibration(path, checkpoint, None, robot=robot), path)
    if known and not sets:
        warnings.warn(
            "calibration: none is named, expected the set that the gates were made with, so that "
            "observations in both are refused; name it with --calibration",
            QvlaWarning,
            stacklevel=2,
        )


def require_distinct(names: Collection[str]) -> None:
    """Raises QvlaError if there is nothing to measure, or two things have one name."""
    doubled = sorted({name for name in names if list(names).count(name) > 1})
    if doubled or not names:
        raise QvlaError(
            "gates_path, uniform, bundle and fakequant",
            f"the name {doubled[0]!r} twice" if doubled else "nothing to measure",
            "at least one, each with a name of its own",
            "name them as NAME=PATH, e.g. --gates_path four=out/gates.json",
        )


def _checked(name: str, actions: np.ndarray, reference: np.ndarray | None) -> np.ndarray:
    if not np.isfinite(actions).all():
        broken = int((~np.isfinite(actions)).any(axis=(1, 2)).sum())
        raise QvlaError(
            f"actions of {name}",
            f"not finite for {broken} of {len(actions)} observations",
            "finite numbers",
            "look for weights that overflow: a wider bit-width for their layer may do",
        )
    if reference is not None and actions.shape != reference.shape:
        raise QvlaError(
            f"actions of {name}",
            f"chunks of shape {list(actions.shape[1:])}",
            f"{list(reference.shape[1:])}, as the float policy gives them",
            "export it again from this checkpoint, without --ensemble",
        )
    return actions
