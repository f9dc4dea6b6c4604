"""Describes how rows are stored and by which quantizer. Imports no torch, so options show fast."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from qvla_offline.option_fields import option
from qvla_offline.quantization.registry import QUANTIZERS
from qvla_ros.errors import QvlaError

BIT_WIDTHS = (0, 2, 3, 4, 8, 16)  # of a row, as every quantizer makes them
STORED_BIT_WIDTHS = (0, 2, 4, 8, 16)  # that a container of the engines holds, see containers.py
WHOLE_ROW = 0  # as group_size: one scale a row
SCALE_BITS = {"float16": 16, "float32": 32}
ComputeDtype = Literal["float32", "float16"]  # of a graph's activations and scales
TWO_BIT_STORAGES = ("int4", "int2")
DEFAULT_QUANTIZER = "clip_search"
COMPENSATING = "guided_gptq"  # the default where there are statistics
# how files spelled the quantizer when there were two of them: by the value of `clip_search`
_BY_CLIP_SEARCH = {True: DEFAULT_QUANTIZER, False: "rtn"}


@dataclass(frozen=True)
class QuantizationScheme:
    """The storage of a row of each bit-width, and the quantizer.

    group_size: inputs that share a scale at 2 to 4 bits (a power of two, 16 to 256, as the engines
    want it, or WHOLE_ROW, which none of them holds); 8-bit rows have one scale, because TensorRT
    has no blocked INT8. clip_search: false
    means quantizer 'rtn', as earlier files spell it; None once the scheme is made, so that
    dataclasses.replace changes the quantizer of any scheme. scale_dtype: stored type of the scales.
    two_bit_storage: 'int4' keeps 2-bit codes in an INT4 container (every engine reads it), 'int2'
    packs them. quantizer: one of QUANTIZERS.
    """

    group_size: int = option(
        64, "inputs that share a scale at 2 to 4 bits; 0: the whole row, which no engine holds"
    )
    clip_search: bool | None = option(None, "scale to the largest weight, clip none")
    scale_dtype: str = option("float16", "float16 or float32")
    two_bit_storage: str = option(
        "int4", "int4, which every engine reads, or int2: ONNX Runtime only"
    )
    quantizer: str = option(DEFAULT_QUANTIZER, f"one of {', '.join(QUANTIZERS)}")

    def __post_init__(self) -> None:
        size = self.group_size
        whole = isinstance(size, int) and size == WHOLE_ROW
        if not isinstance(size, int) or not (16 <= size <= 256 or whole) or size & (size - 1):
            expected = f"a power of two from 16 to 256, or {WHOLE_ROW} for the whole row"
            raise QvlaError("scheme.group_size", size, expected, "set group_size: 64")
        if self.scale_dtype not in SCALE_BITS:
            raise QvlaError(
                "scheme.scale_dtype", self.scale_dtype, f"one of {list(SCALE_BITS)}", "use float16"
            )
        if self.two_bit_storage not in TWO_BIT_STORAGES:
            raise QvlaError(
                "scheme.two_bit_storage", self.two_bit_storage, "'int4' or 'int2'", "use int4"
            )
        if self.quantizer not in QUANTIZERS:
            raise QvlaError(
                "scheme.quantizer",
                self.quantizer,
                f"one of {list(QUANTIZERS)}",
                f"use {DEFAULT_QUANTIZER}",
            )
        if self.clip_search is None:
            return
        spelled = _BY_CLIP_SEARCH[self.clip_search]
        if self.quantizer not in (type(self).quantizer, spelled):  # its default, or what it means
            raise QvlaError(
                "scheme.clip_search",
                f"{str(self.clip_search).lower()} with quantizer {self.quantizer}",
                f"quantizer {spelled}, which it means",
                "leave clip_search out",
            )
        object.__setattr__(self, "quantizer", spelled)
        object.__setattr__(self, "clip_search", None)

    def described(self) -> dict[str, Any]:
        """The scheme as files hold it; `QuantizationScheme(**described)` gives it back.

        The two quantizers of earlier versions are spelled as these spelled them, by `clip_search`.
        """
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        spellings = {quantizer: search for search, quantizer in _BY_CLIP_SEARCH.items()}
        if self.quantizer in spellings:
            values["clip_search"] = spellings[values.pop("quantizer")]
        else:
            del values["clip_search"]
        return values

    def inputs_per_scale(self, columns: int, bits: int) -> int:
        """Returns how many inputs of a row share a scale: all at 8 bits, a group below."""
        return columns if bits == 8 or self.group_size == WHOLE_ROW else self.group_size

    def scales_per_row(self, columns: int, bits: int) -> int:
        """Counts the scales of a row: none at 0 and 16 bits, one at 8, one per group below."""
        return 0 if bits in (0, 16) else -(-columns // self.inputs_per_scale(columns, bits))

    def row_bits(self, columns: int, bits: int) -> int:
        """Returns the bits of one row's codes and scales.

        See qvla_offline.gates.costs for what its container takes.
        """
        return columns * bits + SCALE_BITS[self.scale_dtype] * self.scales_per_row(columns, bits)


def require_exact_scales(scheme: QuantizationScheme, compute_dtype: str) -> None:
    """Raises QvlaError if a graph that computes in `compute_dtype` would round the scales.

    The graph holds them in that type. With rounded scales its numbers would no longer be those of
    the fake-quantized checkpoint.
    """
    if (scheme.scale_dtype, compute_dtype) == ("float32", "float16"):
        found = "float32 with compute_dtype float16"
        expected = "scales that the compute dtype holds exactly"
        raise QvlaError(
            "scheme.scale_dtype",
            found,
            expected,
            "set scale_dtype: float16, or compute_dtype: float32",
        )
