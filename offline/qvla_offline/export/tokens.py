"""Tokens that are decoded one after the other, in one of two forms of the graph.

Unrolled: the prompt in one pass, then token after token. Keys and values stay inside the graph and
every weight is stored once, so an engine sees an ordinary graph that is run once an inference.
Guessed: one pass over the prompt and a guess of all tokens but the last gives the token that comes
after each; where they differ from the guess, they are the next guess (see qvla_ros.decoding). The
tokens are the same, after as many runs as there are tokens at most. TensorRT-RTX needs it: 1.7
crashes on a graph that multiplies with one quantized weight several times.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qvla_offline.checkpoints.config import PolicyConfig
from qvla_offline.export.graph import GraphBuilder
from qvla_offline.export.inputs import embed, emit_patches, graph_inputs
from qvla_offline.export.llama import LlamaDecoder
from qvla_offline.export.modules import slice_axis
from qvla_offline.export.weights import CheckpointWeights
from qvla_ros.preprocess import MAX_PROMPT_TOKENS

HEAD = "language_model.lm_head"


def decode_tokens(
    graph: GraphBuilder,
    weights: CheckpointWeights,
    config: PolicyConfig,
    count: int,
    choose: Callable[[str, int | None], str],
    guessed: bool,
    only_last: bool,
) -> tuple[str, str]:
    """`count` tokens int64 [1, count], and the hidden states of the whole sequence but the last
    token.

    choose(hidden [1, n, D], index): tokens int64 [1, n]; index: which token that is, None for all
    of them in order. only_last: the hidden states are wanted for choosing alone.
    """
    pixels, ids = graph_inputs(graph, config)
    patches = emit_patches(graph, weights, config, pixels)
    prompt = embed(graph, weights, ids)
    first = slice_axis(graph, prompt, 1, 0, 1)
    rest = slice_axis(graph, prompt, 1, 1, None)
    longest = config.num_patches + MAX_PROMPT_TOKENS + count
    decoder = LlamaDecoder(graph, weights, config.text, longest, causal=True)
    if guessed:
        guess = embed(graph, weights, graph.input("guess", np.int64, [1, count - 1]))
        hidden = decoder(
            graph.op("Concat", first, patches, rest, guess, axis=1),
            (-count, None) if only_last else None,
        )
        return choose(slice_axis(graph, hidden, 1, -count, None), None), hidden
    hidden = decoder(
        graph.op("Concat", first, patches, rest, axis=1), (-1, None) if only_last else None
    )
    tokens = [choose(slice_axis(graph, hidden, 1, -1, None), 0)]
    for index in range(1, count):
        newest = decoder(embed(graph, weights, tokens[-1]))
        hidden = newest if only_last else graph.op("Concat", hidden, newest, axis=1)
        tokens.append(choose(newest, index))
    return graph.op("Concat", *tokens, axis=1), hidden
