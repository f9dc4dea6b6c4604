"""A checkpoint's tensors with the quantization error in them, and all others as they are."""

from __future__ import annotations

import numpy as np
import torch

from qvla_offline.quantization.quantizer import reconstruct_rows
from qvla_offline.quantization.restored import RestoredTensors
from qvla_offline.quantization.scheme import QuantizationScheme

SCHEME = QuantizationScheme(16)
TENSORS = {
    "a.weight": torch.randn(3, 20, generator=torch.Generator().manual_seed(0)).half(),
    "a.bias": torch.randn(3, generator=torch.Generator().manual_seed(1)).half(),
    "conv.weight": torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(2)).half(),
    "float.weight": torch.ones(2, 2),
    "scale": torch.ones(5),
}
LAYERS = {"a": np.array([4, 4, 4]), "conv": np.array([8, 8])}


def test_only_the_weights_of_gated_layers_change_in_value_and_type() -> None:
    restored = RestoredTensors(TENSORS, LAYERS, SCHEME, torch.float32)
    assert list(restored) == list(TENSORS)
    assert len(restored) == 5
    for name in ("a.bias", "float.weight", "scale"):
        assert not restored.changes(name)
        assert restored[name] is TENSORS[name]
    for name, bits in (("a.weight", 4), ("conv.weight", 8)):
        assert restored.changes(name)
        expected = reconstruct_rows(TENSORS[name].flatten(1), bits, SCHEME)
        assert restored[name].dtype == torch.float32
        assert torch.equal(restored[name], expected.reshape(TENSORS[name].shape))
        kept = RestoredTensors(TENSORS, LAYERS, SCHEME)[name]
        assert kept.dtype == torch.float16
        assert torch.equal(kept, restored[name].half())
    assert "a.weight" in restored
    assert "b.weight" not in restored
