"""Writes the Llama decoder of `qvla_offline.checkpoints.llama` as ONNX nodes.

It is for one sequence of any length.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qvla_offline.checkpoints.config import TextConfig
from qvla_offline.export.graph import GraphBuilder
from qvla_offline.export.modules import attention, linear, slice_axis, split_heads, vector
from qvla_offline.export.weights import CheckpointWeights

PREFIX = "language_model.model"
Wanted = tuple[int, int | None]


class Rotation(NamedTuple):
    """Cosine and signed sine [T, head_dim] of the rotary embedding.

    The first half of the sine is negated.
    """

    cosine: str
    sine: str


class _Pass(NamedTuple):
    """One pass over T tokens.

    mask: see `attention`. wanted: the positions to give back, None for all.
    """

    rotation: Rotation
    mask: str | None
    wanted: Wanted | None


class LlamaDecoder:
    """Calls it with embeddings [1, T, D] to emit one pass.

    The result is the normed hidden states [1, T, D].

    causal: every token sees itself and what came before, keys and values are kept, and each call
    goes on where the one before ended; all calls but the first take one token. Otherwise all see
    all, and there is one call. max_tokens: the longest sequence.
    """

    def __init__(
        self,
        graph: GraphBuilder,
        weights: CheckpointWeights,
        config: TextConfig,
        max_tokens: int,
        causal: bool,
    ) -> None:
        self._graph = graph
        self._weights = weights
        self._config = config
        self._causal = causal
        self._max_tokens = max_tokens
        self._cache: list[tuple[str, str]] = []
        self._length: str | None = None  # int64 [1]: tokens so far

    def __call__(self, x: str, wanted: Wanted | None = None) -> str:
        """wanted: (start, stop), start negative and counted from the end, stop None for the end:
        only these positions.

        Only the last layer's keys and values need the other positions, so its queries and its MLP
        skip them: the result is the same.
        """
        config = self._config
        first = self._length is None
        rotation, mask = self._places(x)
        for index in range(config.num_hidden_layers):
            last = index == config.num_hidden_layers - 1
            here = _Pass(rotation, mask if first else None, wanted if last else None)
            x = self._layer(index, x, here)
        return self._rms_norm(f"{PREFIX}.norm", x)

    def _places(self, x: str) -> tuple[Rotation, str | None]:
        """Rotation of the tokens of `x`, which come after those so far, and who sees whom among
        them.
        """
        graph = self._graph
        config = self._config
        with graph.scope(f"{PREFIX}.rotary"):
            count = graph.op("Shape", x, start=1, end=2)
            start = graph.constant([0]) if self._length is None else self._length
            self._length = count if self._length is None else graph.op("Add", self._length, count)
            names = [f"{PREFIX}.rotary.{name}" for name in ("cosine", "sine")]
            if names[0] not in graph.stored_bytes:
                tables = rotary_tables(config.head_dim, config.rope_theta, self._max_tokens)
                for name, table in zip(names, tables, strict=True):
                    graph.tensor(name, table.astype(graph.compute))
            axis = graph.constant([0])
            rotation = Rotation(
                *(graph.op("Slice", name, start, self._length, axis) for name in names)
            )
            return rotation, _causal_mask(graph, count) if self._causal else None

    def _layer(self, index: int, x: str, here: _Pass) -> str:
        graph = self._graph
        weights = self._weights
        config = self._config
        heads = config.num_attention_heads
        kv_heads = config.num_key_value_heads
        head_dim = config.head_dim
        prefix = f"{PREFIX}.layers.{index}"
        normed = self._rms_norm(f"{prefix}.input_layernorm", x)
        attn = f"{prefix}.self_attn"
        asking = normed
        query_rotation = here.rotation
        mask = here.mask
        with graph.scope(attn):
            if here.wanted is not None:
                x, asking = (slice_axis(graph, value, 1, *here.wanted) for value in (x, normed))
                query_rotation = Rotation(
                    *(slice_axis(graph, table, 0, *here.wanted) for table in here.rotation)
                )
                mask = None if mask is None else slice_axis(graph, mask, 0, *here.wanted)
        query = linear(graph, weights, f"{attn}.q_proj", asking)
        key, value = (linear(graph, weights, f"{attn}.{name}_proj", normed) for name in "kv")
        with graph.scope(attn):
            query = _rotate(
                graph, split_heads(graph, query, heads, head_dim, 1), query_rotation, head_dim
            )
            key = _rotate(
                graph, split_heads(graph, key, kv_heads, head_dim, 1), here.rotation, head_dim
            )
            value = split_heads(graph, value, kv_heads, head_dim, 1)
            key, value = self._remember(index, key, value)
            if heads != kv_heads:  # consecutive query heads share one key head
                shared = np.repeat(np.arange(kv_heads), heads // kv_heads)
                key, value = (
                    graph.op("Gather", part, graph.constant(shared), axis=1)
                    for part in (key, value)
                )
            mixed = attention(graph, query, key, value, head_dim, heads * head_dim, 1, mask)
        mixed = linear(graph, weights, f"{attn}.o_proj", mixed)
        with graph.scope(attn):
            x = graph.op("Add", x, mixed)

        normed = self._rms_norm(f"{prefix}.post_attention_layernorm", x)
        gate, up = (
            linear(graph, weights, f"{prefix}.mlp.{name}_proj", normed) for name in ("gate", "up")
        )
        with graph.scope(f"{prefix}.mlp"):
            hidden = graph.op("Mul", graph.op("Mul", gate, graph.op("Sigmoid", gate)), up)
        down = linear(graph, weights, f"{prefix}.mlp.down_proj", hidden)
        with graph.scope(f"{prefix}.mlp"):
            return graph.op("Add", x, down)

    def _remember(self, index: int, key: str, value: str) -> tuple[str, str]:
        """All keys and values [1, kv heads, tokens so far, head_dim] of a layer."""
        if not self._causal:
            return key, value
        if index == len(self._cache):
            self._cache.append((key, value))
        else:
            pairs = zip(self._cache[index], (key, value), strict=True)
            seen_key, seen_value = (
                self._graph.op("Concat", seen, new, axis=2) for seen, new in pairs
            )
            self._cache[index] = seen_key, seen_value
        return self._cache[index]

    def _rms_norm(self, module: str, x: str) -> str:
        """Mean square in float32 whatever the compute dtype, as Llama does.

        The gain comes after the cast back.
        """
        graph = self._graph
        with graph.scope(module):
            narrow = graph.compute != np.float32
            wide = graph.op("Cast", x, to=1) if narrow else x
            mean = graph.op(
                "ReduceMean",
                graph.op("Pow", wide, graph.constant(2.0, np.float32)),
                graph.constant([-1]),
            )
            root = graph.op(
                "Sqrt", graph.op("Add", mean, graph.constant(self._config.rms_norm_eps, np.float32))
            )
            normed = graph.op("Div", wide, root)
            normed = graph.op("Cast", normed, to=graph.onnx_compute) if narrow else normed
            return graph.op("Mul", normed, vector(graph, self._weights, f"{module}.weight"))


def rotary_tables(head_dim: int, theta: float, max_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 cosine and signed sine [max_tokens, head_dim]."""
    periods = np.float32(theta) ** (
        np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    )
    angles = np.arange(max_tokens, dtype=np.float32)[:, None] / periods
    cosine = np.cos(angles)
    sine = np.sin(angles)
    return np.concatenate([cosine, cosine], axis=1), np.concatenate([-sine, sine], axis=1)


def _causal_mask(graph: GraphBuilder, count: str) -> str:
    """The mask [T, T] that hides later tokens from earlier ones; count: int64 [1], T."""
    number = graph.op("Squeeze", count, graph.constant([0]))
    places = graph.op("Range", graph.constant(0, np.int64), number, graph.constant(1, np.int64))
    keys, queries = (graph.op("Unsqueeze", places, graph.constant([axis])) for axis in (0, 1))
    return graph.op(
        "Where",
        graph.op("LessOrEqual", keys, queries),
        graph.constant(0.0),
        graph.constant(-np.inf),
    )


def _rotate(graph: GraphBuilder, x: str, rotation: Rotation, head_dim: int) -> str:
    first, second = graph.ops("Split", x, graph.constant([head_dim // 2] * 2), count=2, axis=-1)
    swapped = graph.op("Concat", second, first, axis=-1)
    return graph.op(
        "Add", graph.op("Mul", x, rotation.cosine), graph.op("Mul", swapped, rotation.sine)
    )
