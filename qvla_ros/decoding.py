"""From one look's graph inputs to normalised actions: how often the graph runs, and what a look
leaves to the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qvla_ros.actions import ensemble, token_actions
from qvla_ros.bundle import ActionSpec, Bundle, DiffusionSpec, LatentSpec, PromptSpec, TokenSpec
from qvla_ros.diffusion import denoise_step, denoising_steps, start_noise
from qvla_ros.engines import Engine
from qvla_ros.errors import QvlaError
from qvla_ros.preprocess import RANGE_EPSILON

Arrays = Mapping[str, NDArray[Any]]
FIRST_LATENT = "<ACT_0>"  # the token of UniVLA's first latent action; the others follow it


class Decoder:
    """The plain case, OpenVLA-OFT's L1 head: one run. One caller at a time.

    range_epsilon: what its code base adds to a range before un-normalising (see
    qvla_ros.actions.unnormalize).
    """

    range_epsilon = RANGE_EPSILON

    def __init__(self, prompt: PromptSpec) -> None:
        self._prompt = prompt

    def prompt(self, instruction: str) -> PromptSpec:
        """The prompt of the next look."""
        return self._prompt

    def run(self, engine: Engine, inputs: Arrays) -> NDArray[Any]:
        """Normalised actions [1, K, A] of one look; an engine that looks at nothing gives `actions`
        at once.
        """
        outputs = engine.run(inputs)
        if "actions" not in outputs:
            raise QvlaError(
                "policy graph outputs", sorted(outputs), "actions", "export the bundle again"
            )
        return outputs["actions"]

    def reset(self) -> None:
        """Forget earlier looks; random numbers go on."""


class Guesses:
    """Runs a graph that says what comes after each token of a guess, until the guess is what it
    says.

    Each run gets at least one token more right, so `count` runs do; the look before is where
    guessing starts.
    """

    def __init__(self, output: str, count: int) -> None:
        self._output = output
        self._count = count
        self._guess: NDArray[Any] = np.zeros((1, count - 1), np.int64)

    def run(self, engine: Engine, inputs: Arrays) -> Mapping[str, NDArray[Any]]:
        for _ in range(self._count):
            outputs = engine.run({**inputs, "guess": self._guess})
            if self._output not in outputs:
                break
            told = outputs[self._output][:, :-1]
            if np.array_equal(told, self._guess):
                break
            self._guess = told
        return outputs


class TokenDecoder(Decoder):
    """OpenVLA: the graph gives one action as tokens."""

    range_epsilon = 0.0

    def __init__(self, prompt: PromptSpec, spec: TokenSpec, guesses: Guesses | None) -> None:
        super().__init__(prompt)
        self._spec = spec
        self._guesses = guesses

    def run(self, engine: Engine, inputs: Arrays) -> NDArray[Any]:
        outputs = engine.run(inputs) if self._guesses is None else self._guesses.run(engine, inputs)
        if "action_tokens" not in outputs:
            return outputs["actions"]
        return token_actions(outputs["action_tokens"], self._spec.vocabulary, self._spec.num_bins)[
            :, None
        ]


class DiffusionDecoder(Decoder):
    """OpenVLA-OFT's diffusion head: the graph tells the noise in noisy actions, step by step.

    Each run looks at the images again. That keeps it one graph, at the price of the ViTs' share of
    the time.
    """

    def __init__(self, prompt: PromptSpec, spec: DiffusionSpec, actions: ActionSpec) -> None:
        super().__init__(prompt)
        self._steps = denoising_steps(spec.num_steps)
        self._shape = (1, actions.chunk_length, len(actions.names))
        self._random = np.random.default_rng(spec.seed)

    def run(self, engine: Engine, inputs: Arrays) -> NDArray[Any]:
        noisy: NDArray[Any] = start_noise(self._shape, self._random)
        for timestep, following in self._steps:
            time = np.array([timestep], np.float32)
            outputs = engine.run({**inputs, "noisy_actions": noisy, "timestep": time})
            if "noise" not in outputs:
                return outputs["actions"]
            noisy = denoise_step(noisy, outputs["noise"], timestep, following)
        return noisy


class LatentDecoder(Decoder):
    """UniVLA: latent tokens are drawn inside the graph; actions may be averaged over looks, tokens
    be told again.
    """

    range_epsilon = 0.0

    def __init__(
        self, prompt: PromptSpec, spec: LatentSpec, tokenizer: Any, guesses: Guesses | None
    ) -> None:
        super().__init__(prompt)
        self._spec = spec
        self._guesses = guesses
        self._random = None if spec.seed is None else np.random.default_rng(spec.seed)
        self._chunks: deque[NDArray[Any]] = deque(maxlen=spec.ensemble_length or 1)
        self._told: list[int] = []  # latent actions of earlier looks, for the next prompt
        self._instruction = ""
        self._first = tokenizer.token_to_id(FIRST_LATENT)
        if spec.history_template is not None and self._first is None:
            expected = f"a token {FIRST_LATENT}, since the prompt tells latent actions"
            raise QvlaError("tokenizer.json", "no such token", expected, "export the bundle again")

    def prompt(self, instruction: str) -> PromptSpec:
        if (
            instruction != self._instruction
        ):  # another task: what was thought of the last one is not its history
            self.reset()
            self._instruction = instruction
        if self._spec.history_template is None or not self._told:
            return self._prompt
        history = "".join(FIRST_LATENT.replace("0", str(token)) for token in self._told)
        return replace(
            self._prompt, template=self._spec.history_template.replace("{history}", history)
        )

    def run(self, engine: Engine, inputs: Arrays) -> NDArray[Any]:
        shape = (1, self._spec.num_tokens, self._spec.top_k)
        noise = np.zeros(shape) if self._random is None else self._random.gumbel(size=shape)
        inputs = {**inputs, "sampling_noise": noise.astype(np.float32)}
        outputs = engine.run(inputs) if self._guesses is None else self._guesses.run(engine, inputs)
        if self._spec.history_template is not None and "latent_tokens" in outputs:
            tokens = [int(token) - self._first for token in outputs["latent_tokens"][0]]
            # Where fewer were drawn than are told, the released code fills up from the prompt that
            # it reads them off.
            self._told = (self._told + [token for token in tokens if token >= 0])[
                -self._spec.num_tokens :
            ]
        if not self._spec.ensemble_length or "latent_tokens" not in outputs:
            return outputs["actions"]
        self._chunks.appendleft(outputs["actions"][0])
        return ensemble(self._chunks)[None, None]

    def reset(self) -> None:
        self._chunks.clear()
        self._told = []
        self._instruction = ""


def make_decoder(bundle: Bundle, tokenizer: Any) -> Decoder:
    """The decoder that the bundle's manifest asks for. tokenizer: the bundle's, a
    tokenizers.Tokenizer.
    """
    spec = bundle.decoder
    prompt = bundle.prompt
    if spec.tokens is not None:
        guesses = Guesses("action_tokens", len(bundle.actions.names)) if spec.guessed else None
        return TokenDecoder(prompt, spec.tokens, guesses)
    if spec.diffusion is not None:
        return DiffusionDecoder(prompt, spec.diffusion, bundle.actions)
    if spec.latents is not None:
        guesses = Guesses("latent_tokens", spec.latents.num_tokens) if spec.guessed else None
        return LatentDecoder(prompt, spec.latents, tokenizer, guesses)
    return Decoder(prompt)
