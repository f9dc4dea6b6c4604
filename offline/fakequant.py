"""A checkpoint with the quantization error in its weights: same layout, same size, runs wherever the original runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from qvla_offline.checkpoints.io import empty_policy
from qvla_offline.checkpoints.targets import quantization_targets
from qvla_offline.gates import Gates, match_layers, write_gates
from qvla_offline.progress import track
from qvla_offline.quantizers import QuantizationScheme, quantize_layer, released_rtn
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from qvla_ros.atomic import atomic_directory
from qvla_ros.errors import QvlaError

MODES = ("scheme", "released")


def target_shapes(checkpoint_path: str | Path) -> dict[str, tuple[int, int]]:
    """{module: (R, C)} of every layer that QVLA quantizes, from config.json alone; no weight is read."""
    targets = quantization_targets(empty_policy(checkpoint_path))
    return {name: (module.weight.shape[0], module.weight[0].numel()) for name, module in targets.items()}


def fake_quantize(
    checkpoint_path: str | Path,
    gates: Gates,
    out_dir: str | Path,
    scheme: QuantizationScheme | None = None,
    mode: str = "scheme",
    dtype: torch.dtype | None = None,
) -> Path:
    """Write `out_dir`: the checkpoint with quantized and restored weights, gates.json, all other files unchanged.

    mode: 'scheme' restores exactly what export stores (up to the rounding of the checkpoint's own dtype: float32 is
    exact); 'released' rounds as the released injection script, in the checkpoint's dtype. dtype: of the target weights,
    None keeps theirs. Shards are rewritten one at a time; the directory appears whole or not at all.
    """
    if mode not in MODES:
        raise QvlaError("mode", mode, f"one of {MODES}", "choose with --mode")
    source, target = Path(checkpoint_path), Path(out_dir)
    if target.resolve() == source.resolve():
        raise QvlaError("out_dir", target, "another directory than the checkpoint", "choose another --out_dir")
    shapes = target_shapes(source)
    gates = match_layers(gates, {name: rows for name, (rows, _) in shapes.items()})
    chosen = scheme or QuantizationScheme(**gates.scheme)
    restore = released_rows if mode == "released" else lambda w, bits: quantize_layer(w, bits, chosen).dequantize()
    missing = {f"{name}.weight" for name in shapes}
    with atomic_directory(target, "config.json") as directory:
        for file in sorted(p for p in source.rglob("*") if p.is_file()):
            copy = directory / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == ".safetensors" and file.parent == source:
                missing -= _rewrite(file, copy, gates.layers, restore, dtype)
            else:
                shutil.copy2(file, copy)
        if missing:
            raise QvlaError(
                str(source), f"no tensor {min(missing)}", "all weights in *.safetensors", "check the download"
            )
        write_gates(directory / "gates.json", gates)
    return target


def released_rows(weight: Tensor, row_bits: np.ndarray) -> Tensor:
    """The released injection: each row of `weight` [R, C] rounded in its own dtype with floor 1e-8."""
    restored = weight.clone()
    for bits in np.unique(row_bits):
        index = torch.from_numpy(np.flatnonzero(row_bits == bits))
        restored[index] = released_rtn(weight[index], int(bits), floor=1e-8)
    return restored


def _rewrite(
    source: Path,
    copy: Path,
    layers: dict[str, np.ndarray],
    restore: Callable[[Tensor, np.ndarray], Tensor],
    dtype: torch.dtype | None,
) -> set[str]:
    """Copy one safetensors file with its target weights restored; returns the names of those."""
    tensors: dict[str, Tensor] = {}
    done = set()
    with safe_open(source, "pt") as file:
        names = list(file.keys())
        for name in track(names, f"fake-quantize {source.name}", total=len(names)):
            tensor = file.get_tensor(name)
            module = name.removesuffix(".weight")
            if name.endswith(".weight") and module in layers:
                back = restore(tensor.flatten(1), layers[module])
                tensor = back.reshape(tensor.shape).to(dtype or tensor.dtype).contiguous()
                done.add(name)
            tensors[name] = tensor
        save_file(tensors, copy, file.metadata())
    shutil.copymode(source, copy)  # safetensors makes its files private
    return done
