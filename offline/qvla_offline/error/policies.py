"""Runs the policies of a comparison: the float one, and those that are quantized from it.

Each gives normalised actions, float64 [N, K, A], for the same observations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from qvla_offline.blockwise.passes import Blockwise
from qvla_offline.blockwise.weights import BlockWeights
from qvla_offline.checkpoints.io import Checkpoint
from qvla_offline.checkpoints.model import PolicyInputs
from qvla_offline.error.held_out import batches
from qvla_ros.bundle import Bundle
from qvla_ros.decoding import make_decoder
from qvla_ros.engines import load_engine
from qvla_ros.errors import QvlaError

MOST_AT_ONCE = 8  # observations; a 7B decoder keeps 0.3 GB of keys and values for each


def checkpoint_actions(
    checkpoint: Checkpoint,
    tensors: Mapping[str, Tensor],
    samples: Sequence[PolicyInputs],
    memory_bytes: float,
    device: str = "cpu",
) -> np.ndarray:
    """Runs a checkpoint that was opened lazily, in float32, with `tensors` as its weights.

    Its blocks are filled one after the other. They stay filled as far as `memory_bytes` reach.
    """
    weights = BlockWeights(checkpoint.model, tensors, device, kept_bytes=memory_bytes)
    policy = Blockwise(checkpoint.model, weights)
    found: dict[int, np.ndarray] = {}
    with torch.no_grad(), policy.filled_on_demand():
        for numbers in batches(samples, MOST_AT_ONCE):
            batch = _joined([samples[number] for number in numbers]).to(device)
            actions = checkpoint.model(batch).double().cpu().numpy()
            found |= dict(zip(numbers, actions, strict=True))
    return np.stack([found[number] for number in range(len(samples))])


def bundle_actions(bundle: Bundle, samples: Sequence[PolicyInputs], backend: str) -> np.ndarray:
    """Runs a bundle's graph in an engine; each observation is the first of its episode.

    The graph gets the very inputs that the checkpoint gets, so only the graph and its weights can
    make a difference.
    """
    from tokenizers import Tokenizer

    require_no_noise(bundle)
    tokenizer = Tokenizer.from_file(str(bundle.directory / "tokenizer.json"))
    engine = load_engine(bundle, backend)
    try:
        decoder = make_decoder(bundle, tokenizer)
        actions = []
        for sample in samples:
            decoder.reset()
            actions.append(decoder.run(engine, _arrays(sample))[0])
    finally:
        engine.close()
    return np.stack(actions).astype(np.float64)


def require_no_noise(bundle: Bundle) -> None:
    """Refuses a policy that draws random numbers: its noise is not that of the checkpoint."""
    if bundle.decoder.draws_noise:
        raise QvlaError(
            f"bundle {bundle.directory}",
            f"a policy of kind {bundle.decoder.kind}, which draws random numbers",
            "a policy whose actions follow from its observation",
            f"measure its gates instead: --gates_path {bundle.directory / 'gates.json'}",
        )


def _arrays(sample: PolicyInputs) -> dict[str, np.ndarray]:
    arrays = {
        "pixel_values": sample.pixel_values.numpy(),
        "input_ids": sample.input_ids.numpy(),
    }
    return arrays if sample.proprio is None else arrays | {"proprio": sample.proprio.numpy()}


def _joined(samples: Sequence[PolicyInputs]) -> PolicyInputs:
    proprio = [sample.proprio for sample in samples if sample.proprio is not None]
    return PolicyInputs(
        torch.cat([sample.pixel_values for sample in samples]),
        torch.cat([sample.input_ids for sample in samples]),
        torch.cat(proprio) if proprio else None,
    )
