"""Compares, layer by layer, the bytes in a graph and its plans with those that the gates ask for.

The graph is read from its own initializers. A plan is searched for each weight's bytes in the
layouts that builders keep (as it is or transposed, packed or unpacked): that needs no GPU and no
trust in the builder's log. A weight that a builder has reordered otherwise is reported as not
found, never guessed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from qvla_offline.export.graph import packed_bytes
from qvla_offline.gates import read_gates
from qvla_offline.quantization.containers import layer_bytes
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_ros.bundle import Bundle, load_bundle
from qvla_ros.engines.plan import graph_hashes, list_plans

NOT_FOUND = "not found"
SMALLEST_SEARCHED_BYTES = 64  # shorter strings could lie in a plan by chance
INTEGERS = ("int8", "int4", "int2")
# between an initializer and its matrix product
_PASSED_THROUGH = (
    "DequantizeLinear",
    "Cast",
    "Transpose",
    "Reshape",
)


@dataclass(frozen=True)
class LayerAudit:
    """One linear layer of the graph.

    bits: {bit-width: rows} asked, empty without gates; promised_bytes: what those rows take, scales
    and padding included, None without gates. graph_bytes: {precision: bytes}, scales counted with
    the weight they belong to. plan_bytes: {plan: {precision: bytes of weights found}}, precision
    NOT_FOUND for those that are nowhere in the plan.
    """

    name: str
    bits: dict[int, int]
    promised_bytes: int | None
    graph_bytes: dict[str, int]
    plan_bytes: dict[str, dict[str, int]]

    @property
    def complaint(self) -> str | None:
        """How this layer's bytes in the graph differ from what the gates promise; None if not."""
        held = sum(self.graph_bytes.values())
        if self.promised_bytes is None or held <= self.promised_bytes:
            return None
        parts = ", ".join(f"{precision} {size:,}" for precision, size in self.graph_bytes.items())
        return (
            f"{self.name}: the gates promise {self.promised_bytes:,} bytes, the graph "
            f"holds {held:,} ({parts})"
        )


@dataclass(frozen=True)
class Audit:
    """The result of audit_bundle.

    absent: gated layers of which the graph holds no weight (never executed, or of 0 bits). unnamed:
    matrices of the graph that no layer's name leads to. other_bytes: of all initializers that are
    no layer's weight. plans: {plan: bytes}. stale: plans built from another graph, not looked into.
    unpacked: low-bit weights that plans hold as floats.
    """

    layers: list[LayerAudit]
    absent: list[str]
    unnamed: list[str]
    other_bytes: int
    plans: dict[str, int]
    stale: list[str]
    unpacked: list[str] = field(default_factory=list)

    @property
    def complaints(self) -> list[str]:
        """Lists all that breaks a promise.

        It is empty when the graph and its plans are as small as the gates promise.
        """
        broken = [layer.complaint for layer in self.layers if layer.complaint is not None]
        if self.absent and self.unnamed:
            broken.append(
                f"{len(self.absent)} gated layers are absent while {len(self.unnamed)} "
                "matrices have no layer's name"
            )
        return broken + self.unpacked


def audit_bundle(directory: str | Path) -> Audit:
    """Compares the graph and the plans of a bundle with its gates.

    QvlaError if the bundle is damaged.
    """
    bundle = load_bundle(directory)
    gates, scheme = _gates(bundle)
    model = _read_graph(bundle.directory / "policy.onnx")
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    held = _weights_by_layer(initializers)
    plans = list_plans(bundle.directory)
    current = {
        p.name: p.read_bytes()
        for p, sidecar in plans.items()
        if sidecar.graph == graph_hashes(bundle)
    }
    layers = []
    unpacked = []
    for layer, weights in held.items():
        found = {plan: dict[str, int]() for plan in current}
        for plan, content in current.items():
            for weight in weights:
                precision, size = find_weight(
                    weight, initializers.get(f"{weight.name}.scale"), content
                )
                found[plan][precision] = found[plan].get(precision, 0) + size
                if _precision(weight) in INTEGERS and precision.startswith("float"):
                    unpacked.append(f"{weight.name}: {plan} holds it as {precision}")
        bits = gates.get(layer)
        promised = None if bits is None else _promised_bytes(bits, weights, initializers, scheme)
        counts = (
            {}
            if bits is None
            else {int(b): int(n) for b, n in sorted(Counter(bits.tolist()).items())}
        )
        layers.append(
            LayerAudit(layer, counts, promised, _graph_bytes(weights, initializers), found)
        )
    sizes = {name: _size_bytes(tensor) for name, tensor in initializers.items()}
    in_layers = sum(sum(layer.graph_bytes.values()) for layer in layers)
    return Audit(
        layers=layers,
        absent=[name for name in gates if name not in held],
        unnamed=sorted(
            _matrices(model) - {weight.name for weights in held.values() for weight in weights}
        ),
        other_bytes=sum(sizes.values()) - in_layers,
        plans={name: len(content) for name, content in current.items()},
        stale=[plan.name for plan in plans if plan.name not in current],
        unpacked=unpacked,
    )


def _read_graph(path: Path) -> onnx.ModelProto:
    """The graph with its weights, wherever links lead: onnx itself follows none.

    The bundle's hashes have been checked, so the files are those that were exported.
    """
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            place = {entry.key: entry.value for entry in tensor.external_data}
            with (path.parent / Path(place["location"]).name).open("rb") as file:
                file.seek(int(place.get("offset", 0)))
                tensor.raw_data = file.read(int(place["length"]))
            tensor.data_location = TensorProto.DEFAULT
    return model


def find_weight(weight: TensorProto, scale: TensorProto | None, plan: bytes) -> tuple[str, int]:
    """Finds the narrowest precision in which `plan` holds this weight.

    Returns the precision and the bytes there; NOT_FOUND and the bytes here if it is nowhere.
    """
    for precision, content in _forms(weight, scale):
        if len(content) >= SMALLEST_SEARCHED_BYTES and content in plan:
            return precision, len(content)
    return NOT_FOUND, _size_bytes(weight)


def _forms(weight: TensorProto, scale: TensorProto | None) -> Iterator[tuple[str, bytes]]:
    """Yields the forms in which a builder may keep a weight, narrowest first, also transposed."""
    stored = numpy_helper.to_array(weight)
    arrays = [(_precision(weight), stored)]
    if scale is not None:
        codes = stored.astype(np.float32)
        scales = numpy_helper.to_array(scale).astype(np.float32)
        values = codes * (
            scales if scales.ndim == 1 else np.repeat(scales, len(codes) // len(scales), axis=0)
        )
        arrays += [("int8", codes.astype(np.int8))] if arrays[0][0] != "int8" else []
        arrays.append(("float16", values.astype(np.float16)))
    else:
        values = stored.astype(np.float32)
    arrays.append(("float32", values))
    for precision, array in arrays:
        yield precision, packed_bytes(array)
        yield precision, packed_bytes(np.ascontiguousarray(array.T))


def _gates(bundle: Bundle) -> tuple[dict[str, np.ndarray], QuantizationScheme]:
    if "gates.json" not in bundle.files:
        return {}, QuantizationScheme()
    gates = read_gates(bundle.directory / "gates.json")
    return gates.layers, QuantizationScheme(**gates.scheme)


def _weights_by_layer(initializers: dict[str, TensorProto]) -> dict[str, list[TensorProto]]:
    layers: dict[str, list[TensorProto]] = defaultdict(list)
    for name, tensor in initializers.items():
        if ".weight" in name and len(tensor.dims) > 1 and not name.endswith(".scale"):
            layers[name.partition(".weight")[0]].append(tensor)
    return dict(layers)


def _graph_bytes(
    weights: list[TensorProto], initializers: dict[str, TensorProto]
) -> dict[str, int]:
    sizes: dict[str, int] = defaultdict(int)
    for weight in weights:
        scale = initializers.get(f"{weight.name}.scale")
        sizes[_precision(weight)] += _size_bytes(weight) + (
            0 if scale is None else _size_bytes(scale)
        )
    return dict(sizes)


def _promised_bytes(
    bits: np.ndarray,
    weights: list[TensorProto],
    initializers: dict[str, TensorProto],
    scheme: QuantizationScheme,
) -> int:
    """Computes the bytes of rows of these bit-widths.

    Inputs per row: the fewest of the layer's matrices, as blocks pad theirs.
    """
    ours = [weight.dims[0] for weight in weights if not weight.name.endswith(".weight")]
    inputs = min(ours) if ours else int(np.prod(weights[0].dims)) // len(bits)
    scales = [initializers[f"{w.name}.scale"] for w in weights if f"{w.name}.scale" in initializers]
    scale_bytes = max((numpy_helper.to_array(scale).itemsize for scale in scales), default=4)
    return layer_bytes(bits, inputs, scheme, scale_bytes)


def _matrices(model: onnx.ModelProto) -> set[str]:
    """Names the initializers that a matrix product or a convolution takes as its weight."""
    makers = {output: node for node in model.graph.node for output in node.output}
    names = {tensor.name for tensor in model.graph.initializer}
    found = set()
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm", "Conv"):
            continue
        source = node.input[1]
        while source in makers and makers[source].op_type in _PASSED_THROUGH:
            source = makers[source].input[0]
        if source in names:
            found.add(source)
    return found


def _precision(tensor: TensorProto) -> str:
    name = TensorProto.DataType.Name(tensor.data_type).lower()
    return {"float": "float32"}.get(name, name)


def _size_bytes(tensor: TensorProto) -> int:
    return len(packed_bytes(numpy_helper.to_array(tensor)))
