"""From a checkpoint and its gates to a bundle: the graph, the manifest, and the files beside."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import onnx

from qvla_offline.calibration import policy_needs
from qvla_offline.checkpoints.io import Checkpoint, load_checkpoint
from qvla_offline.checkpoints.targets import quantization_targets
from qvla_offline.export.exportable import require_exportable
from qvla_offline.export.graph import GraphBuilder, StoredGraph
from qvla_offline.export.linear import StoredLinear, opset_for
from qvla_offline.export.options import DEFAULT_OPTIONS, ExportOptions
from qvla_offline.export.policy import emit_policy
from qvla_offline.export.unpacked import merge_row_groups
from qvla_offline.export.weights import Weights, parameters_in
from qvla_offline.gates import Gates, match_layers, read_gates, uniform, write_gates
from qvla_offline.gates.promotion import print_promotion
from qvla_offline.quantization.scheme import QuantizationScheme, require_exact_scales
from qvla_offline.robot import LIBERO, RobotDescription, camera_specs
from qvla_ros.atomic import require_replaceable
from qvla_ros.bundle import (
    MANIFEST_NAME,
    ActionSpec,
    DecoderSpec,
    Manifest,
    ProprioceptionSpec,
    QuantizationSummary,
    save_bundle,
    sha256_of,
)
from qvla_ros.doctor.parity import write_parity
from qvla_ros.policy import load_policy

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
) -> Path:
    """Write the bundle of a checkpoint directory to `out_dir`, whole or not at all.

    Returns its path.

    gates: bits per output channel (object or file), None for float16 everywhere. scheme: None takes
    the one that the gates were priced with. Rows that `options.tile` promotes are printed, and the
    bundle's gates.json holds the bits that are stored. progress: called with the name of each
    linear layer as it is written. A policy of up to MAX_PARITY_BYTES is run before its bundle gets
    its name; the answers are added for other machines to compare.
    """
    require_replaceable(out_dir, MANIFEST_NAME)
    checkpoint = load_checkpoint(checkpoint_path, unnorm_key, lazily=True)
    require_exportable(checkpoint, robot, options)
    policy_needs(checkpoint, robot)
    # may refuse a size that config.json states, before anything is written
    camera_specs(checkpoint, robot)
    rows = {
        name: module.weight.shape[0]
        for name, module in quantization_targets(checkpoint.model).items()
    }
    if isinstance(gates, (str, Path)):
        gates = read_gates(gates)
    gates = None if gates is None else match_layers(gates, rows)
    if scheme is None:
        scheme = QuantizationScheme(**gates.scheme) if gates is not None else QuantizationScheme()
    if gates is not None:
        require_exact_scales(scheme, options.compute_dtype)
    asked = gates if gates is not None else uniform(rows, 16)
    rows_per_tile = 1 if options.tile is None else options.tile
    weights = Weights(checkpoint.tensors, asked.layers, scheme, rows_per_tile, progress)

    out = Path(out_dir)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        parts = Path(scratch)
        files = {
            name: parts / name for name in ("policy.onnx", "policy.onnx.data", "statistics.json")
        }
        files["tokenizer.json"] = checkpoint.path / "tokenizer.json"
        with GraphBuilder(
            files["policy.onnx.data"], options.compute_dtype, opset_for(scheme.two_bit_storage)
        ) as graph:
            emit_policy(graph, weights, checkpoint.config, options)
            stored = graph.finish()
            onnx.save(stored.model, files["policy.onnx"])
            if gates is not None:
                files["policy.unpacked.onnx"] = parts / "policy.unpacked.onnx"
                onnx.save(
                    merge_row_groups(stored.model, stored.products), files["policy.unpacked.onnx"]
                )
        for name in [name for name in files if name.endswith(".onnx")]:
            onnx.checker.check_model(files[name])
        files["statistics.json"].write_text(
            json.dumps(checkpoint.statistics, indent=1) + "\n", encoding="utf-8"
        )
        targets = {name: layer for name, layer in stored.layers.items() if name in asked.layers}
        parameters = parameters_in(stored, checkpoint.tensors)
        if gates is not None:
            layers = {**gates.layers, **{name: layer.bits for name, layer in targets.items()}}
            columns = {name: layer.inputs for name, layer in targets.items()}
            print_promotion(gates.layers, layers, columns, scheme, options.compute_dtype)
            files["gates.json"] = parts / "gates.json"
            write_gates(
                files["gates.json"],
                replace(gates, layers=layers, scheme=scheme.described()),
            )
        summary = _summary(gates, scheme, stored, targets, parameters, files.get("gates.json"))
        decoder = checkpoint.family.decoder(checkpoint.config, options)
        manifest = _manifest(checkpoint, robot, summary, decoder)
        save_bundle(out, manifest, files, _run_once if 4 * parameters <= MAX_PARITY_BYTES else None)
    return out


def _run_once(bundle_dir: Path) -> None:
    """Run the bundle, and keep its answers in it.

    QvlaError if it does not load or its actions are not finite.
    """
    policy = load_policy(bundle_dir, "onnxruntime", threads=1)
    try:
        write_parity(policy)
    finally:
        policy.close()


def _summary(
    gates: Gates | None,
    scheme: QuantizationScheme,
    stored: StoredGraph,
    targets: Mapping[str, StoredLinear],
    parameters: int,
    gates_file: Path | None,
) -> QuantizationSummary:
    """Sizes as they are in the graph.

    Bits per weight count the quantization targets that the graph executes.
    """
    weights = sum(len(layer.bits) * layer.inputs for layer in targets.values())
    nominal_bits = sum(layer.nominal_bits for layer in targets.values())
    target_bytes = sum(
        size
        for name, size in stored.stored_bytes.items()
        if name.partition(".weight.")[0] in targets
    )
    return QuantizationSummary(
        method="none" if gates is None else gates.method,
        gates_sha256=None if gates_file is None else sha256_of(gates_file),
        nominal_bits_per_weight=round(nominal_bits / weights, 4),
        stored_bits_per_weight=round(8 * target_bytes / weights, 4),
        weight_bytes=sum(stored.stored_bytes.values()),
        float16_weight_bytes=2 * parameters,
        group_size=None if gates is None else scheme.group_size,
    )


def _manifest(
    checkpoint: Checkpoint,
    robot: RobotDescription,
    summary: QuantizationSummary,
    decoder: DecoderSpec,
) -> Manifest:
    decoding = checkpoint.config.decoding
    return Manifest(
        family=checkpoint.family.name,
        cameras=camera_specs(checkpoint, robot),
        proprioception=ProprioceptionSpec(robot.proprioception, decoding.normalization)
        if decoding.proprio_dim
        else None,
        prompt=checkpoint.prompt,
        actions=ActionSpec(
            **asdict(robot.actions),
            chunk_length=1 if decoder.one_action else decoding.chunk_length,
            normalization=decoding.normalization,
        ),
        quantization=summary,
        decoder=decoder,
    )
