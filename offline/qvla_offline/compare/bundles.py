"""The bundle of each policy that drives the simulated arm; made where there is none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from qvla_offline.compare.starts import FLOAT
from qvla_offline.error.subjects import Subject, Subjects
from qvla_offline.export.bundle import export_bundle
from qvla_offline.export.options import ExportOptions
from qvla_offline.fakequant import fake_quantize
from qvla_offline.fingerprint import checkpoint_sha256, value_sha256
from qvla_offline.quantization.quantizer import quantizer_of
from qvla_offline.robot import LIBERO, RobotDescription
from qvla_ros.bundle import MANIFEST_NAME, Bundle, load_bundle
from qvla_ros.errors import QvlaError
from qvla_ros.simulation.in_process import require_simulated_arm


class Bundles:
    """Bundles by what they were made of, in a folder: made once, found again by the next run."""

    def __init__(self, folder: Path, made_by: Subjects, robot: RobotDescription = LIBERO) -> None:
        self._folder = folder
        self._made_by = made_by
        self._robot = robot

    def of_float(self) -> Bundle:
        """The checkpoint itself, stored in float16 as in every bundle."""
        checkpoint = self._made_by.checkpoint
        return self._made(FLOAT, ["float", checkpoint_sha256(checkpoint)], checkpoint)

    def of(self, subject: Subject) -> Bundle:
        """The subject's own bundle, or one of its gates, or of its fake-quantized weights.

        Weights that no container holds (3 bits, scaled inputs) are rounded, restored and stored in
        float16.
        """
        if self._made_by.activations.rounds:
            raise QvlaError(
                "activation_bits",
                self._made_by.activations.activation_bits,
                "activations as they are, in closed loop: no engine rounds them",
                "leave out --episodes to compare action errors alone",
            )
        if subject.kind == "bundle":
            assert subject.path is not None
            bundle = load_bundle(subject.path)
        elif subject.kind == "fakequant":
            assert subject.path is not None
            bundle = self._made(subject.name, identity(subject, self._made_by), subject.path)
        else:
            bundle = self._of_gates(subject)
        require_simulated_arm(bundle)
        return bundle

    def _of_gates(self, subject: Subject) -> Bundle:
        made_by = self._made_by
        statistics = None if made_by.statistics is None else made_by.statistics.directory
        made_of = identity(subject, made_by)
        assert subject.gates is not None
        assert subject.scheme is not None
        if "stored" in subject.bits_per_weight and not quantizer_of(subject.scheme).scales_inputs:
            return self._made(subject.name, made_of, made_by.checkpoint, subject, statistics)
        restored = self._place(f"fakequant {subject.name}", made_of)
        if not restored.is_dir():
            fake_quantize(
                made_by.checkpoint,
                subject.gates,
                restored,
                subject.scheme,
                statistics_dir=statistics,
                trained_scales=subject.trained.path,
            )
        return self._made(subject.name, made_of, restored)

    def _made(
        self,
        name: str,
        made_of: Any,
        checkpoint: Path,
        gated: Subject | None = None,
        statistics: Path | None = None,
    ) -> Bundle:
        """The bundle of a checkpoint, float or with the gates of `gated`."""
        place = self._place(name, made_of)
        if not (place / MANIFEST_NAME).is_file():
            export_bundle(
                checkpoint,
                None if gated is None else gated.gates,
                place,
                None if gated is None else gated.scheme,
                ExportOptions(self._made_by.compute_dtype),
                self._robot,
                self._made_by.unnorm_key,
                statistics_dir=statistics,
                trained_scales=None if gated is None else gated.trained.path,
            )
        return load_bundle(place)

    def _place(self, name: str, made_of: Any) -> Path:
        robot = None if self._robot is LIBERO else repr(self._robot)
        options = [self._made_by.unnorm_key, self._made_by.compute_dtype, robot]
        readable = re.sub(r"[^\w.@-]+", "_", name)
        return self._folder / f"{readable}-{value_sha256([made_of, options])[:12]}"


def identity(subject: Subject, made_by: Subjects) -> list[Any]:
    """All that a subject's actions depend on, beside the observations, as JSON."""
    if subject.kind == "bundle":
        assert subject.path is not None
        return ["bundle", load_bundle(subject.path, verify_hashes=False).bundle_id, made_by.backend]
    activations = asdict(made_by.activations)
    if subject.kind == "fakequant":
        assert subject.path is not None
        return ["fakequant", checkpoint_sha256(subject.path), activations]
    assert subject.gates is not None
    assert subject.scheme is not None
    statistics = None if made_by.statistics is None else made_by.statistics.sha256
    checkpoint = checkpoint_sha256(made_by.checkpoint)
    bits = _listed(subject.gates.layers)
    made_of = ["gates", bits, subject.scheme.described(), statistics, checkpoint, activations]
    return made_of if subject.trained.path is None else [*made_of, subject.trained.sha256]


def _listed(layers: Mapping[str, np.ndarray]) -> dict[str, list[int]]:
    return {name: np.asarray(bits).tolist() for name, bits in layers.items()}
