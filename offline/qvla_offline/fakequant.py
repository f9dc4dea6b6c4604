"""Writes a checkpoint with the quantization error in its weights.

It has the layout and size of the original, and runs with the original code.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from qvla_offline.checkpoints import lora
from qvla_offline.checkpoints.family import read_layout
from qvla_offline.checkpoints.film import film_name
from qvla_offline.checkpoints.io import empty_policy
from qvla_offline.checkpoints.results import result_directory
from qvla_offline.checkpoints.stored import (
    INDEX,
    main_tensors,
    safetensors_tensors,
    state_dict,
    weights_file,
    write_safetensors,
)
from qvla_offline.checkpoints.targets import quantization_targets
from qvla_offline.checkpoints.tensor_source import TensorSource, config_file, origin_of
from qvla_offline.fingerprint import require_same_checkpoint
from qvla_offline.gates import Gates, match_layers, write_gates
from qvla_offline.quantization.quantizer import NO_STATISTICS
from qvla_offline.quantization.restored import RestoredTensors
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.quantization.stored_statistics import statistics_for
from qvla_offline.quantization.trained_scales import made_with, trained_scales_for
from qvla_offline.rounding import Rounding
from qvla_offline.visible_files import visible_files
from qvla_ros.errors import QvlaError
from qvla_ros.progress import track

MODES = ("scheme", "released")


def target_shapes(checkpoint_path: str | Path) -> dict[str, tuple[int, int]]:
    """Returns {module: (R, C)} of every layer that QVLA quantizes.

    It is read from config.json; no weight is read.
    """
    targets = quantization_targets(empty_policy(checkpoint_path))
    return {
        name: (module.weight.shape[0], module.weight[0].numel()) for name, module in targets.items()
    }


def fake_quantize(
    checkpoint_path: str | Path,
    gates: Gates,
    out_dir: str | Path,
    scheme: QuantizationScheme | None = None,
    mode: str = "scheme",
    dtype: torch.dtype | None = None,
    statistics_dir: str | Path | None = None,
    trained_scales: str | Path | None = None,
) -> Path:
    """Writes the checkpoint with quantized and restored weights to `out_dir`.

    gates.json is added; all other files are unchanged. mode: 'scheme' restores exactly what export
    stores, up to the rounding of the checkpoint's own dtype, whose size is printed (dtype float32
    is exact); 'released' rounds as the released injection script, in the checkpoint's dtype. dtype:
    of the target weights, None keeps theirs. Files, names and types stay those of the original, so
    that the original code loads the result; a LoRA adapter is merged, and left out. statistics_dir:
    of `qvla statistics`, for quantizers that need them. trained_scales: a file of
    `qvla train_scales`. Tensors are read and written one at a time; the directory appears whole or
    not at all.
    """
    if mode not in MODES:
        raise QvlaError("mode", mode, f"one of {MODES}", "choose with --mode")
    source = Path(checkpoint_path)
    target = Path(out_dir)
    layout = read_layout(source)
    origin = origin_of(source)
    _require_outside(target, {source, origin.base, origin.adapter or source})
    shapes = target_shapes(source)
    gates = match_layers(gates, {name: rows for name, (rows, _) in shapes.items()})
    require_same_checkpoint("gates", gates.sources, source)
    chosen = scheme or QuantizationScheme(**gates.scheme)
    if mode == "released":
        chosen = replace(chosen, quantizer="released", two_bit_storage="int4")
    tensors = layout.open_tensors()
    tensors.check_against(empty_policy(source), source)
    statistics = statistics_for(chosen, statistics_dir, source)
    trained = trained_scales_for(trained_scales, source, gates.layers, chosen, statistics)
    gates = replace(gates, sources=gates.sources | made_with(statistics, trained))
    read = statistics or NO_STATISTICS
    restored = RestoredTensors(tensors, gates.layers, chosen, torch.float32, read, trained)
    rounding = Rounding()

    shards = sorted({stored.file for stored in main_tensors(origin.base).values()})
    adapter = (
        []
        if origin.adapter is None
        else [origin.adapter / name for name in (lora.CONFIG, lora.WEIGHTS)]
    )
    rewritten = {*shards, *adapter, layout.film_file}
    with result_directory(target, "fakequant") as directory:
        for file in visible_files(source):
            if file not in rewritten:
                _copy(file, directory / file.relative_to(source))
        if not (directory / "config.json").is_file():
            _copy(config_file(source), directory / "config.json")
        if origin.base != source and weights_file(origin.base).name == INDEX:
            _copy(origin.base / INDEX, directory / INDEX)
        for shard in shards:
            _write_shard(shard, directory / shard.name, tensors, restored, dtype, rounding)
        if layout.film_file is not None:
            film = directory / layout.film_file.name
            _write_film(layout.film_file, film, restored, dtype, rounding)
        write_gates(directory / "gates.json", gates)
    changes = rounding.described()
    if changes is not None:
        print(f"rounded from a bundle's numbers to the checkpoint's types: {changes}")
        print("--dtype float32 (fakequant_dtype: float32 in a recipe) writes a bundle's own")
    return target


def _require_outside(target: Path, sources: set[Path]) -> None:
    """Raises QvlaError if `target` could replace a source, or be copied with it by the next run."""
    out = target.resolve()
    for source in (source.resolve() for source in sources):
        if out == source or out in source.parents or source in out.parents:
            expected = f"a directory that neither holds nor lies in {source}, which is read"
            raise QvlaError("out_dir", target, expected, "choose an --out_dir outside of it")


def _copy(file: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(file, copy)


def _write_shard(
    source: Path,
    copy: Path,
    tensors: TensorSource,
    restored: RestoredTensors,
    dtype: torch.dtype | None,
    rounding: Rounding,
) -> None:
    """Writes one safetensors file with its target weights restored, a tensor at a time.

    dtype: of the target weights, None keeps theirs; rounding: to which the changes are added. What
    a FiLM file overrides stays as it is: the policy does not read it here.
    """
    here = safetensors_tensors(source)
    read = {name for name, stored in tensors.stored.items() if stored.file == source}
    changed = {name for name in read if restored.changes(name)}
    kinds = {
        name: (s.shape, dtype if dtype and name in changed else s.dtype) for name, s in here.items()
    }
    kinds = dict(sorted(kinds.items(), key=lambda item: -item[1][1].itemsize))

    def value(name: str) -> Tensor:
        if name not in changed:
            return tensors[name] if name in read else here[name].read()
        return _rounded(restored[name], kinds[name][1], rounding)

    values = ((name, value(name)) for name in kinds)
    with safe_open(source, "pt") as file:
        metadata = file.metadata()
    write_safetensors(
        copy, kinds, track(values, f"fake-quantize {source.name}", total=len(kinds)), metadata
    )


def _rounded(exact: Tensor, dtype: torch.dtype, rounding: Rounding) -> Tensor:
    rounded = exact.to(dtype)
    if dtype != exact.dtype:
        rounding.add(exact, rounded)
    return rounded


def _write_film(
    source: Path,
    copy: Path,
    restored: RestoredTensors,
    dtype: torch.dtype | None,
    rounding: Rounding,
) -> None:
    """Writes the FiLM file with the weights of its targets restored.

    Adapters are merged into them, and their factors zeroed.
    """
    state = dict(state_dict(source))
    for key, tensor in state.items():
        name = film_name(key.removeprefix("module."))
        plain = name.replace(".base_layer.", ".")
        if restored.changes(plain):
            state[key] = _rounded(restored[plain], dtype or tensor.dtype, rounding)
        elif ".lora_B." in name and name.partition(".lora_B.")[0] in restored.layers:
            state[key] = torch.zeros_like(tensor)
    torch.save(state, copy)
