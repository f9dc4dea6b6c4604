"""How a bundle's graph is written: what a recipe's section `export` and `qvla export` may set."""

from __future__ import annotations

from dataclasses import dataclass

from qvla_offline.option_fields import option
from qvla_offline.quantization.scheme import ComputeDtype

NOISE_SEED = 7  # of what is drawn at run time; the released evaluations set all seeds to 7


@dataclass(frozen=True)
class ExportOptions:
    """How a bundle's graph is written. `exportable.require_exportable` checks it for a checkpoint.

    compute_dtype: of activations and scales. tile: None stores exactly the bits of the gates; a
    number fills row groups up to multiples of it by promoting rows. In a recipe the gates do that,
    within their budget, and None is the default of Budget. ensemble: UniVLA executes one action an
    inference, averaged over inferences, in place of whole chunks. guessed: OpenVLA and UniVLA in
    the form for TensorRT-RTX (see export.tokens).
    """

    compute_dtype: ComputeDtype = option(
        "float32", "type of activations and scales; float16 for TensorRT"
    )
    tile: int | None = option(
        None,
        "promote rows until row groups are multiples of this (default: the gates' own bits)",
    )
    ensemble: bool = option(False, "UniVLA: one action an inference, averaged over inferences")
    guessed: bool = option(False, "OpenVLA and UniVLA in the form for TensorRT-RTX")


DEFAULT_OPTIONS = ExportOptions()
