"""Exports a checkpoint with its gates as a bundle: graph, manifest and other files."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import onnx

from qvla_offline.calibration import policy_needs
from qvla_offline.checkpoints.io import Checkpoint, load_checkpoint
from qvla_offline.checkpoints.targets import quantization_targets
from qvla_offline.export.exportable import require_exportable, require_own_bits
from qvla_offline.export.graph import GraphBuilder
from qvla_offline.export.linear import opset_for
from qvla_offline.export.manifest import describe_bundle, summarize, values_of
from qvla_offline.export.options import DEFAULT_OPTIONS, ExportOptions
from qvla_offline.export.policy import emit_policy
from qvla_offline.export.stored import StoredGraph, StoredLinear
from qvla_offline.export.unpacked import merge_row_groups
from qvla_offline.export.weights import CheckpointWeights, parameters_in
from qvla_offline.fingerprint import require_same_checkpoint
from qvla_offline.gates import Gates, match_layers, read_gates, uniform, write_gates
from qvla_offline.gates.files import widths_in
from qvla_offline.gates.promotion import print_promotion
from qvla_offline.quantization.containers import require_storable
from qvla_offline.quantization.quantizer import NO_STATISTICS, require_plain_inputs
from qvla_offline.quantization.scheme import QuantizationScheme, require_exact_scales
from qvla_offline.quantization.stored_statistics import statistics_for
from qvla_offline.quantization.trained_scales import (
    UNTRAINED,
    made_with,
    trained_scales_for,
)
from qvla_offline.robot import LIBERO, RobotDescription, camera_specs
from qvla_ros.atomic import require_replaceable
from qvla_ros.bundle import MANIFEST_NAME, save_bundle
from qvla_ros.doctor.parity import write_parity
from qvla_ros.policy import load_policy

GATES = "gates.json"
# of weights as ONNX Runtime holds them: exporting a large policy must not need its memory
MAX_PARITY_BYTES = 2 << 30


def export_bundle(
    checkpoint_path: str | Path,
    gates: Gates | str | Path | None,
    out_dir: str | Path,
    scheme: QuantizationScheme | None = None,
    options: ExportOptions = DEFAULT_OPTIONS,
    robot: RobotDescription = LIBERO,
    unnorm_key: str | None = None,
    progress: Callable[[str], None] | None = None,
    statistics_dir: str | Path | None = None,
    trained_scales: str | Path | None = None,
) -> Path:
    """Writes the bundle of a checkpoint directory to `out_dir`, whole or not at all.

    Returns its path.

    gates: bits per output channel (object or file), None for float16 everywhere. scheme: None takes
    the one that the gates were priced with. Rows that `options.tile` promotes are printed, and the
    bundle's gates.json holds the bits that are stored. progress: called with the name of each
    linear layer as it is written. A policy of up to MAX_PARITY_BYTES is run before its bundle gets
    its name; the answers are added for other machines to compare. statistics_dir: of
    `qvla statistics`, for quantizers that need them. trained_scales: file of `qvla train_scales`.
    """
    require_replaceable(out_dir, MANIFEST_NAME)
    checkpoint = load_checkpoint(checkpoint_path, unnorm_key, lazily=True)
    require_exportable(checkpoint, robot, options)
    policy_needs(checkpoint, robot)
    # may refuse a size that config.json states, before anything is written
    with values_of(checkpoint):
        camera_specs(checkpoint, robot)
        checkpoint.family.decoder(checkpoint.config, options)
    rows = {
        name: module.weight.shape[0]
        for name, module in quantization_targets(checkpoint.model).items()
    }
    gates, scheme = _matched(gates, scheme, rows, options)
    statistics = None
    trained = UNTRAINED
    if gates is not None:
        require_same_checkpoint("gates", gates.sources, checkpoint_path)
        statistics = statistics_for(scheme, statistics_dir, checkpoint_path)
        require_own_bits(options.tile, trained_scales)
        trained = trained_scales_for(
            trained_scales, checkpoint_path, gates.layers, scheme, statistics
        )
        gates = replace(gates, sources=gates.sources | made_with(statistics, trained))
    asked = gates if gates is not None else uniform(rows, 16)
    tile = 1 if options.tile is None else options.tile
    read = statistics or NO_STATISTICS
    weights = CheckpointWeights(
        checkpoint.tensors, asked.layers, scheme, tile, progress, read, trained=trained
    )
    out = Path(out_dir)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        parts = Path(scratch)
        stored = _write_graphs(parts, checkpoint, weights, options, unpacked=gates is not None)
        changes = weights.rounding.described()
        if changes is not None:
            print(f"kept as float16 though no gate names them: {changes}")
        dataset_statistics = json.dumps(checkpoint.statistics, indent=1) + "\n"
        (parts / "statistics.json").write_text(dataset_statistics, encoding="utf-8")
        targets = {name: layer for name, layer in stored.layers.items() if name in asked.layers}
        if gates is not None:
            _write_stored_gates(parts / GATES, gates, targets, scheme, options)
        files = {part.name: part for part in parts.iterdir()}
        files["tokenizer.json"] = checkpoint.path / "tokenizer.json"
        parameters = parameters_in(stored, checkpoint.tensors)
        summary = summarize(gates, scheme, stored, targets, parameters, files.get(GATES))
        with values_of(checkpoint):
            decoder = checkpoint.family.decoder(checkpoint.config, options)
            manifest = describe_bundle(checkpoint, robot, summary, decoder)
        save_bundle(out, manifest, files, _run_once if 4 * parameters <= MAX_PARITY_BYTES else None)
    return out


def _matched(
    gates: Gates | str | Path | None,
    scheme: QuantizationScheme | None,
    rows: Mapping[str, int],
    options: ExportOptions,
) -> tuple[Gates | None, QuantizationScheme]:
    """Returns the gates of the layers in `rows`, and the scheme that stores them.

    QvlaError if they do not fit the layers, or the scales the compute type.
    """
    if gates is None:
        return None, scheme or QuantizationScheme()
    if isinstance(gates, (str, Path)):
        gates = read_gates(gates)
    gates = match_layers(gates, rows)
    scheme = scheme or QuantizationScheme(**gates.scheme)
    require_exact_scales(scheme, options.compute_dtype)
    require_storable(widths_in(gates.layers), scheme)
    require_plain_inputs(scheme)
    return gates, scheme


def _write_graphs(
    folder: Path,
    checkpoint: Checkpoint,
    weights: CheckpointWeights,
    options: ExportOptions,
    unpacked: bool,
) -> StoredGraph:
    """Writes policy.onnx and its data into `folder`, and policy.unpacked.onnx if `unpacked`."""
    data = folder / "policy.onnx.data"
    opset = opset_for(weights.scheme.two_bit_storage)
    with GraphBuilder(data, options.compute_dtype, opset) as graph:
        emit_policy(graph, weights, checkpoint.config, options)
        stored = graph.finish()
    models = {"policy.onnx": stored.model}
    if unpacked:
        models["policy.unpacked.onnx"] = merge_row_groups(stored.model, stored.products)
    for name, model in models.items():
        onnx.save(model, folder / name)
    for name in models:
        onnx.checker.check_model(folder / name)
    return stored


def _write_stored_gates(
    path: Path,
    gates: Gates,
    targets: Mapping[str, StoredLinear],
    scheme: QuantizationScheme,
    options: ExportOptions,
) -> None:
    """Writes the bits that `targets` are stored with, and prints how many rows were promoted."""
    layers = {**gates.layers, **{name: layer.bits for name, layer in targets.items()}}
    columns = {name: layer.inputs for name, layer in targets.items()}
    print_promotion(gates.layers, layers, columns, scheme, options.compute_dtype)
    write_gates(path, replace(gates, layers=layers, scheme=scheme.described()))


def _run_once(bundle_dir: Path) -> None:
    """Runs the bundle, and keeps its answers in it.

    QvlaError if it does not load or its actions are not finite.
    """
    policy = load_policy(bundle_dir, "onnxruntime", threads=1)
    try:
        write_parity(policy)
    finally:
        policy.close()
