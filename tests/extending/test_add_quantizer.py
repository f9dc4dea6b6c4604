"""docs/how_to/add_quantizer.md, followed to the letter with its own example."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.checkpoints.targets import quantization_targets
from qvla_offline.export.bundle import export_bundle
from qvla_offline.fakequant import fake_quantize
from qvla_offline.gates import Gates, read_gates
from qvla_offline.quantization.quantizer import reconstruct_rows
from qvla_offline.quantization.registry import QUANTIZERS
from qvla_offline.quantization.scheme import QuantizationScheme

PAGE = (Path(__file__).parents[2] / "docs" / "how_to" / "add_quantizer.md").read_text()


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The example of the page, as a file and one registration."""
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    [(name, where)] = re.findall(r'^    "(\w+)": "([\w.:]+)",$', PAGE, re.MULTILINE)
    module, _, kind = where.partition(":")
    file = tmp_path / "added" / f"{module.rpartition('.')[2]}.py"
    file.parent.mkdir()
    file.write_text(code)
    monkeypatch.syspath_prepend(file.parent)
    monkeypatch.setitem(QUANTIZERS, name, f"{file.stem}:{kind}")
    yield name
    sys.modules.pop(file.stem, None)


def test_the_added_quantizer_runs_from_the_recipe_to_the_bundle(name: str, tmp_path: Path) -> None:
    scheme = QuantizationScheme(32, quantizer=name)
    checkpoint = write_random_checkpoint(tmp_path / "checkpoint")
    source = load_checkpoint(checkpoint)
    targets = quantization_targets(source.model)
    rng = np.random.default_rng(0)
    layers = {n: rng.choice([0, 2, 4, 8, 16], len(m.weight)) for n, m in targets.items()}
    gates = Gates(layers, "test", scheme=scheme.described())
    bundle = export_bundle(checkpoint, gates, tmp_path / "bundle")
    assert read_gates(bundle / "gates.json").scheme["quantizer"] == name
    out = fake_quantize(checkpoint, gates, tmp_path / "fake", dtype=torch.float32)
    restored = load_checkpoint(out).tensors
    for layer, bits in layers.items():
        weight = source.tensors[f"{layer}.weight"].flatten(1)
        for width in set(bits.tolist()):
            rows = bits == width
            expected = reconstruct_rows(weight[rows], width, scheme)
            assert torch.equal(restored[f"{layer}.weight"].flatten(1)[rows], expected)


def test_the_page_names_the_files_to_touch() -> None:
    folder = Path(__file__).parents[2] / "offline" / "qvla_offline" / "quantization"
    assert (folder / "registry.py").is_file()
    assert "offline/qvla_offline/quantization/registry.py" in PAGE
