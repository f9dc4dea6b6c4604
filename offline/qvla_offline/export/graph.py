"""A small ONNX writer: nodes with readable names, tensors streamed to one external data file.

The graph is written node by node rather than traced from torch, so that every weight keeps its
checkpoint name, every group of rows is placed on purpose, and a 7B checkpoint passes through layer
by layer instead of lying in memory twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper

from qvla_offline.export.stored import RowProduct, StoredGraph, StoredLinear

# the first with INT4 and blocked DequantizeLinear; ONNX Runtime and TensorRT(-RTX) both read it
OPSET = 21
OPSET_INT2 = 25  # the first whose DequantizeLinear takes INT2; ONNX Runtime only
# the oldest that holds the opset: older engines refuse newer files
IR_VERSION = {
    OPSET: 10,
    OPSET_INT2: 13,
}
# shapes, indices and small vectors stay in the protobuf, where shape inference can see them
INLINE_BYTES = 1024
PAGE_BYTES = 4096  # ONNX Runtime maps a tensor straight from the file only if it starts on a page:
MAPPED_BYTES = 1 << 16  # worth the gap for tensors from this size on
# several codes to the byte
PACKED_BITS = {
    np.dtype(ml_dtypes.int4): 4,
    np.dtype(ml_dtypes.int2): 2,
}


class GraphBuilder:
    """Collects one graph. Use as a context manager: it owns the external data file until `model()`
    is taken.

    data_path: where tensors above INLINE_BYTES go; the model refers to it by its file name alone.
    compute: numpy dtype of activations, float32 or float16; constants that meet activations are
    stored in it.
    """

    def __init__(self, data_path: Path, compute: str = "float32", opset: int = OPSET) -> None:
        self.compute = np.dtype(compute)
        self.onnx_compute = helper.np_dtype_to_tensor_dtype(self.compute)
        self.opset = opset
        self._data_path = data_path
        self._data = data_path.open("wb")
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}
        self.stored_bytes: dict[str, int] = {}  # of every tensor and constant, by name
        self.products: list[RowProduct] = []
        # by module; one that is used again is not stored again
        self.layers: dict[str, StoredLinear] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._scope: list[str] = []
        self._uses: dict[str, int] = {}

    def __enter__(self) -> GraphBuilder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._data.close()

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefixes the names of the nodes made inside with `name`, as a module path does."""
        self._scope.append(name)
        try:
            yield
        finally:
            self._scope.pop()

    def input(self, name: str, dtype: type[np.generic], shape: Sequence[int | str]) -> str:
        """Declares a graph input; a string in `shape` is a dynamic dimension of that name."""
        self._inputs.append(
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape
            )
        )
        return name

    def output(
        self, value: str, name: str, dtype: type[np.generic], shape: Sequence[int | str]
    ) -> None:
        """Gives `value` the public name `name`."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"output/{name}"))
        element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self._outputs.append(helper.make_tensor_value_info(name, element, shape))

    def op(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Appends a node with one output.

        The name of its value is returned. An empty name skips an optional input.
        """
        return self.ops(op_type, *inputs, count=1, **attributes)[0]

    def ops(self, op_type: str, *inputs: str, count: int, **attributes: Any) -> list[str]:
        """Appends a node with `count` outputs."""
        name = self._unique("/".join([*self._scope, op_type]))
        results = [name] if count == 1 else [f"{name}:{i}" for i in range(count)]
        self._nodes.append(
            helper.make_node(op_type, list(inputs), results, name=name, **attributes)
        )
        return results

    def tensor(self, name: str, array: np.ndarray) -> str:
        """Stores `array` under exactly `name` (a weight).

        INT4 and INT2 arrays (ml_dtypes) are packed.
        """
        if name in self._initializers:
            raise ValueError(f"tensor {name} is already in the graph")
        element = helper.np_dtype_to_tensor_dtype(array.dtype)
        proto = TensorProto(name=name, data_type=element, dims=array.shape)
        raw = packed_bytes(array)
        if len(raw) < INLINE_BYTES:
            proto.raw_data = raw
        else:
            alignment = PAGE_BYTES if len(raw) >= MAPPED_BYTES else 16
            offset = -(-self._data.tell() // alignment) * alignment
            self._data.seek(offset)
            self._data.write(raw)
            proto.data_location = TensorProto.EXTERNAL
            for key, value in (
                ("location", self._data_path.name),
                ("offset", offset),
                ("length", len(raw)),
            ):
                proto.external_data.add(key=key, value=str(value))
        self._initializers[name] = proto
        self.stored_bytes[name] = len(raw)
        return name

    def constant(
        self,
        values: np.ndarray | Sequence[int] | float,
        dtype: type[np.generic] | np.dtype | None = None,
    ) -> str:
        """Stores an unnamed constant: int64 for sequences of int, else the compute dtype unless
        `dtype` is given.
        """
        array = np.asarray(values)
        if dtype is None:
            dtype = np.int64 if array.dtype.kind == "i" else self.compute
        return self.tensor(self._unique("/".join([*self._scope, "constant"])), array.astype(dtype))

    def finish(self) -> StoredGraph:
        """The graph and what it stores. The data file is complete once this context ends."""
        return StoredGraph(
            self.model(), dict(self.layers), tuple(self.products), dict(self.stored_bytes)
        )

    def model(self, metadata: dict[str, str] | None = None) -> onnx.ModelProto:
        """The checked graph. Its weights are in the data file, which is complete once this context
        ends.
        """
        self._data.flush()
        graph = helper.make_graph(
            self._nodes, "policy", self._inputs, self._outputs, list(self._initializers.values())
        )
        opset = helper.make_opsetid("", self.opset)
        model = helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSION[self.opset], producer_name="qvla"
        )
        helper.set_model_props(model, metadata or {})
        return model

    def _unique(self, name: str) -> str:
        count = self._uses[name] = self._uses.get(name, -1) + 1
        return f"{name}_{count}" if count else name


def packed_bytes(array: np.ndarray) -> bytes:
    """The ONNX raw bytes of `array`, little endian.

    INT4 and INT2 go several to the byte, lowest bits first.
    """
    bits = PACKED_BITS.get(array.dtype)
    if bits is None:
        return np.ascontiguousarray(array).tobytes()
    per_byte = 8 // bits
    codes = array.reshape(-1).astype(np.int8).view(np.uint8) & ((1 << bits) - 1)
    codes = np.pad(codes, (0, -codes.size % per_byte)).reshape(-1, per_byte)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return np.bitwise_or.reduce(codes << shifts, axis=1).astype(np.uint8).tobytes()
