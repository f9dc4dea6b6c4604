"""OpenVLA-OFT's diffusion head: the graph gives the noise in noisy actions, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qvla_ros.decoding.base import Arrays, Decoder, DecoderKind, Runner, always
from qvla_ros.diffusion import NUM_TRAIN_STEPS, denoise_step, denoising_steps, start_noise
from qvla_ros.specifications import ActionSpec, PromptSpec, require


@dataclass(frozen=True)
class DiffusionSpec:
    """OpenVLA-OFT's diffusion head: denoising steps an inference, and the seed of the noise that
    they start from.
    """

    num_steps: int
    seed: int

    def __post_init__(self) -> None:
        expected = f"1 to {NUM_TRAIN_STEPS}"
        require(
            1 <= self.num_steps <= NUM_TRAIN_STEPS,
            "decoder.diffusion.num_steps",
            self.num_steps,
            expected,
        )


class DiffusionDecoder(Decoder):
    """Runs the graph once per denoising step.

    Each run reads the images again. That keeps it one graph, at the price of the ViTs' share of the
    time.
    """

    def __init__(self, prompt: PromptSpec, spec: DiffusionSpec, actions: ActionSpec) -> None:
        super().__init__(prompt)
        self._steps = denoising_steps(spec.num_steps)
        self._shape = (1, actions.chunk_length, len(actions.names))
        self._random = np.random.default_rng(spec.seed)

    def run(self, engine: Runner, inputs: Arrays) -> NDArray[Any]:
        noisy: NDArray[Any] = start_noise(self._shape, self._random)
        for timestep, following in self._steps:
            time = np.array([timestep], np.float32)
            outputs = engine.run({**inputs, "noisy_actions": noisy, "timestep": time})
            if "noise" not in outputs:
                return outputs["actions"]
            noisy = denoise_step(noisy, outputs["noise"], timestep, following)
        return noisy


DIFFUSION = DecoderKind(
    "diffusion",
    make=lambda manifest, tokenizer: DiffusionDecoder(
        manifest.prompt, manifest.decoder.diffusion, manifest.actions
    ),
    describe=lambda diffusion: f"diffusion, {diffusion.num_steps} steps, seed {diffusion.seed}",
    settings="diffusion",
    draws_noise=always,
)
