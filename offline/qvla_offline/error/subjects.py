"""Opens and checks the quantized policies of a comparison before anything runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qvla_offline.activations.options import AS_THEY_ARE, ActivationScheme
from qvla_offline.activations.rounding import input_roundings, rounding_inputs
from qvla_offline.checkpoints.io import Checkpoint, load_checkpoint
from qvla_offline.checkpoints.model import PolicyInputs
from qvla_offline.checkpoints.targets import quantization_targets, unexecuted_targets
from qvla_offline.error.policies import bundle_actions, checkpoint_actions, require_no_noise
from qvla_offline.fingerprint import require_same_checkpoint
from qvla_offline.gates import Gates, match_layers, read_gates, uniform
from qvla_offline.gates.costs import COSTS, Pricing
from qvla_offline.gates.files import widths_in
from qvla_offline.quantization.containers import can_be_stored
from qvla_offline.quantization.quantizer import NO_STATISTICS
from qvla_offline.quantization.restored import RestoredTensors
from qvla_offline.quantization.scheme import BIT_WIDTHS, ComputeDtype, QuantizationScheme
from qvla_offline.quantization.stored_statistics import StoredStatistics
from qvla_offline.quantization.trained_scales import (
    UNTRAINED,
    TrainedScales,
    trained_scales_for,
)
from qvla_offline.sensitivity.hessian import columns
from qvla_ros.bundle import Bundle, load_bundle
from qvla_ros.errors import QvlaError

Actions = Callable[[Sequence[PolicyInputs]], np.ndarray]  # -> normalised, float64 [N, K, A]


@dataclass(frozen=True)
class Subject:
    """One policy to measure.

    kind: "gates", "uniform", "bundle" or "fakequant". bits_per_weight: {"nominal": ..., "stored":
    ...} with scales, over the layers that are quantized and executed; empty if no file has it.
    gates: None if no file has them. path: what it was opened from; None for "uniform". scheme: how
    "gates" and "uniform" store their rows; None for the others. trained: scales and biases of
    "gates".
    """

    name: str
    kind: str
    actions: Actions
    bits_per_weight: Mapping[str, float]
    gates: Gates | None
    path: Path | None = None
    scheme: QuantizationScheme | None = None
    trained: TrainedScales = UNTRAINED


@dataclass(frozen=True)
class Subjects:
    """Makes subjects from the files that were made from one checkpoint.

    scheme: fields to set otherwise than a gates file has them. compute_dtype: for stored bits, as
    in `qvla gates`. statistics: for quantizers that need them. activations: how the inputs of
    the quantized layers are rounded, in all but bundles.
    """

    checkpoint: Path
    unnorm_key: str | None = None
    scheme: Mapping[str, Any] | None = None
    statistics: StoredStatistics | None = None
    compute_dtype: ComputeDtype = "float32"
    backend: str = "onnxruntime"
    memory_bytes: float = 2e9
    device: str = "cpu"
    activations: ActivationScheme = AS_THEY_ARE

    def open(self, path: Path | None = None) -> Checkpoint:
        """The checkpoint at `path` (None: the float one), its weights still in its files."""
        return load_checkpoint(
            path or self.checkpoint, self.unnorm_key, device=self.device, lazily=True
        )

    def float_actions(self, samples: Sequence[PolicyInputs]) -> np.ndarray:
        """The actions of the float policy."""
        checkpoint = self.open()
        return self._run(checkpoint, checkpoint.tensors, samples)

    def of_gates(self, name: str, path: Path, trained_scales: Path | None = None) -> Subject:
        """The checkpoint, fake-quantized in memory by the gates of a file.

        trained_scales: file of `qvla train_scales`; None for the quantizer's own.
        """
        gates = read_gates(path)
        self.require_same_checkpoint(f"gates {path}", gates.sources)
        return self._gated(name, "gates", gates, path, trained_scales)

    def of_uniform(self, bits: int) -> Subject:
        """The checkpoint, fake-quantized in memory with one bit-width in all layers that run."""
        if bits not in BIT_WIDTHS:
            expected = f"bit-widths out of {', '.join(map(str, BIT_WIDTHS))}"
            raise QvlaError("uniform", bits, expected, "choose with --uniform, e.g. 2,4,8")
        model = self.open().model
        rows = {n: m.weight.shape[0] for n, m in quantization_targets(model).items()}
        everywhere = uniform(rows, bits)
        # layers that never run keep 16 bits, as in all gates: no statistics are there for them
        idle = unexecuted_targets(model)
        kept = {name: np.full(rows[name], 16, np.uint8) for name in rows if name in idle}
        layers = everywhere.layers | kept
        gates = replace(everywhere, layers=layers, not_executed=tuple(kept))
        return self._gated(f"uniform {bits} bits", "uniform", gates)

    def of_bundle(self, name: str, path: Path) -> Subject:
        """A bundle, run by its engine."""
        if self.activations.rounds:
            raise QvlaError(
                "activation_bits",
                f"{self.activations.activation_bits} with bundle {path}",
                "gates or fake-quantized checkpoints: engines keep activations as they are",
                f"measure its gates instead: --gates_path {path / 'gates.json'}",
            )
        bundle = load_bundle(path)
        require_no_noise(bundle)
        self._require_same_statistics(path, bundle)
        gates = self._gates_beside(f"bundle {path}", bundle.directory)
        stored = bundle.quantization
        bits = {"nominal": stored.nominal_bits_per_weight, "stored": stored.stored_bits_per_weight}

        def actions(samples: Sequence[PolicyInputs]) -> np.ndarray:
            return bundle_actions(bundle, samples, self.backend)

        return Subject(name, "bundle", actions, bits, gates, path)

    def of_fakequant(self, name: str, path: Path) -> Subject:
        """A checkpoint with the quantization error in its weights."""
        checkpoint = self.open(path)
        if checkpoint.config != self.open().config:
            raise QvlaError(
                f"fakequant {path}",
                "a config.json of another policy",
                f"that of {self.checkpoint}",
                "fake-quantize this checkpoint with `qvla fakequant`",
            )
        gates = self._gates_beside(f"fakequant {path}", path)
        bits = {} if gates is None else self._bits(checkpoint, gates, _scheme(gates))
        run = self._rounding(checkpoint, checkpoint.tensors, dict)
        return Subject(self._labelled(name), "fakequant", run, bits, gates, path)

    def _gated(
        self,
        name: str,
        kind: str,
        gates: Gates,
        path: Path | None = None,
        trained_scales: Path | None = None,
    ) -> Subject:
        checkpoint = self.open()
        targets = quantization_targets(checkpoint.model)
        gates = match_layers(gates, {n: m.weight.shape[0] for n, m in targets.items()})
        scheme = _scheme(gates, self.scheme or {})
        trained = trained_scales_for(
            trained_scales, self.checkpoint, gates.layers, scheme, self.statistics
        )
        statistics = self.statistics or NO_STATISTICS
        restored = RestoredTensors(
            checkpoint.tensors, gates.layers, scheme, torch.float32, statistics, trained
        )
        run = self._rounding(checkpoint, restored, restored.input_scales)
        bits = self._bits(checkpoint, gates, scheme)
        return Subject(self._labelled(name), kind, run, bits, gates, path, scheme, trained)

    def _labelled(self, name: str) -> str:
        return name + (self.activations.label() if self.activations.rounds else "")

    def _rounding(
        self,
        checkpoint: Checkpoint,
        tensors: Mapping[str, Tensor],
        input_scales: Callable[[], Mapping[str, Tensor]],
    ) -> Actions:
        """Runs `checkpoint` with `tensors` as its weights, and the inputs of its layers rounded.

        QvlaError at once if they cannot be. input_scales(): what the weights expect inputs to be
        divided by, {layer: [C]}; asked for when it runs.
        """
        layers = quantization_targets(checkpoint.model)
        scheme = self.activations
        statistics = self.statistics or NO_STATISTICS
        if scheme.rounds:
            input_roundings(scheme, layers, statistics, {})

        def actions(samples: Sequence[PolicyInputs]) -> np.ndarray:
            if not scheme.rounds:
                return self._run(checkpoint, tensors, samples)
            roundings = input_roundings(scheme, layers, statistics, input_scales())
            with rounding_inputs(layers, roundings):
                return self._run(checkpoint, tensors, samples)

        return actions

    def _gates_beside(self, key: str, directory: Path) -> Gates | None:
        """The gates.json of a directory that was made from the checkpoint; None if it has none."""
        file = directory / "gates.json"
        if not file.is_file():
            return None
        gates = read_gates(file)
        self.require_same_checkpoint(key, gates.sources)
        return gates

    def _run(
        self,
        checkpoint: Checkpoint,
        tensors: Mapping[str, Tensor],
        samples: Sequence[PolicyInputs],
    ) -> np.ndarray:
        return checkpoint_actions(checkpoint, tensors, samples, self.memory_bytes, self.device)

    def _bits(
        self, checkpoint: Checkpoint, gates: Gates, scheme: QuantizationScheme
    ) -> dict[str, float]:
        targets = quantization_targets(checkpoint.model)
        idle = unexecuted_targets(checkpoint.model) | set(gates.not_executed)
        executed = {name: columns(module) for name, module in targets.items() if name not in idle}
        return {
            cost: Pricing(scheme, cost, self.compute_dtype).bits_per_weight(gates.layers, executed)
            for cost in COSTS
            if cost == "nominal" or can_be_stored(widths_in(gates.layers), scheme)
        }

    def require_same_checkpoint(self, key: str, sources: Mapping[str, str]) -> None:
        """QvlaError if `sources`, which `key` states, name another checkpoint than this one."""
        require_same_checkpoint(key, sources, self.checkpoint)

    def _require_same_statistics(self, path: Path, bundle: Bundle) -> None:
        there = json.loads((bundle.directory / "statistics.json").read_text(encoding="utf-8"))
        if there != self.open().statistics:
            raise QvlaError(
                f"bundle {path}",
                "other statistics than the checkpoint's, so other normalised actions",
                f"a bundle of {self.checkpoint}",
                "name the checkpoint that it was exported from with --pretrained_checkpoint",
            )


def _scheme(gates: Gates, changed: Mapping[str, Any] | None = None) -> QuantizationScheme:
    return replace(QuantizationScheme(**gates.scheme), **(changed or {}))
