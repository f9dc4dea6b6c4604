"""UniVLA: latent tokens are drawn inside the graph, which turns them into a chunk of actions."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qvla_ros.actions import ensemble
from qvla_ros.decoding.base import Arrays, Decoded, Decoder, DecoderKind, Guesses, Runner
from qvla_ros.errors import QvlaError
from qvla_ros.specifications import PromptSpec, require

FIRST_LATENT = "<ACT_0>"  # the token of the first latent action; the others follow it
OUTPUT = "latent_tokens"


@dataclass(frozen=True)
class LatentSpec:
    """UniVLA's latent action tokens.

    num_tokens, top_k: shape of the noise that they are drawn with; seed: of that noise, null for
    the likeliest tokens. ensemble_length: 0, and the whole chunk is executed; else the length of
    the graph's chunk, of which one action is executed per inference, averaged with what the
    inferences before gave for that moment. history_template: the prompt from the second inference
    on, with {instruction} and {history}, the last inference's tokens; null to use the plain prompt
    throughout.
    """

    num_tokens: int
    top_k: int
    seed: int | None
    ensemble_length: int
    history_template: str | None

    def __post_init__(self) -> None:
        template = self.history_template
        whole = template is None or all(
            template.count(name) == 1 for name in ("{instruction}", "{history}")
        )
        require(
            whole,
            "decoder.latents.history_template",
            repr(template),
            "{instruction} and {history}, once each",
        )
        for name, lowest in (("num_tokens", 1), ("top_k", 1), ("ensemble_length", 0)):
            value = getattr(self, name)
            require(lowest <= value <= 1024, f"decoder.latents.{name}", value, f"{lowest} to 1024")


class LatentDecoder(Decoder):
    """Actions may be averaged over inferences, and latent tokens may stand in the next prompt."""

    range_epsilon = 0.0

    def __init__(
        self, prompt: PromptSpec, spec: LatentSpec, tokenizer: Any, guesses: Guesses | None
    ) -> None:
        super().__init__(prompt)
        self._spec = spec
        self._guesses = guesses
        self._random = None if spec.seed is None else np.random.default_rng(spec.seed)
        self._chunks: deque[NDArray[Any]] = deque(maxlen=spec.ensemble_length or 1)
        self._history: list[int] = []  # latent actions of earlier inferences, for the next prompt
        self._instruction = ""
        self._first = tokenizer.token_to_id(FIRST_LATENT)
        if spec.history_template is not None and self._first is None:
            expected = f"a token {FIRST_LATENT}, since the prompt tells latent actions"
            fix = "export again from a checkpoint whose tokenizer.json has UniVLA's tokens"
            raise QvlaError("tokenizer.json", "no such token", expected, fix)

    def prompt(self, instruction: str) -> PromptSpec:
        # Another task: what was thought of the last one is not its history.
        if instruction != self._instruction:
            self.reset()
            self._instruction = instruction
        if self._spec.history_template is None or not self._history:
            return self._prompt
        history = "".join(FIRST_LATENT.replace("0", str(token)) for token in self._history)
        return replace(
            self._prompt, template=self._spec.history_template.replace("{history}", history)
        )

    def run(self, engine: Runner, inputs: Arrays) -> NDArray[Any]:
        shape = (1, self._spec.num_tokens, self._spec.top_k)
        noise = np.zeros(shape) if self._random is None else self._random.gumbel(size=shape)
        inputs = {**inputs, "sampling_noise": noise.astype(np.float32)}
        outputs = engine.run(inputs) if self._guesses is None else self._guesses.run(engine, inputs)
        if self._spec.history_template is not None and OUTPUT in outputs:
            tokens = [int(token) - self._first for token in outputs[OUTPUT][0]]
            # Where fewer were drawn than the prompt names, the released code fills up from the
            # prompt that it reads them off.
            latents = self._history + [token for token in tokens if token >= 0]
            self._history = latents[-self._spec.num_tokens :]
        if not self._spec.ensemble_length or OUTPUT not in outputs:
            return outputs["actions"]
        self._chunks.appendleft(outputs["actions"][0])
        return ensemble(self._chunks)[None, None]

    def reset(self) -> None:
        self._chunks.clear()
        self._history = []
        self._instruction = ""


def _make(manifest: Decoded, tokenizer: Any) -> LatentDecoder:
    spec = manifest.decoder
    guesses = Guesses(OUTPUT, spec.latents.num_tokens) if spec.guessed else None
    return LatentDecoder(manifest.prompt, spec.latents, tokenizer, guesses)


def _describe(latents: LatentSpec) -> str:
    drawn = "the likeliest" if latents.seed is None else f"drawn with seed {latents.seed}"
    averaged = f", {latents.ensemble_length} inferences averaged" if latents.ensemble_length else ""
    return f"{latents.num_tokens} latent tokens, {drawn}{averaged}"


UNIVLA = DecoderKind(
    "univla",
    make=_make,
    describe=_describe,
    settings="latents",
    decodes_tokens=True,
    draws_noise=lambda latents: latents.seed is not None,
    one_action=lambda latents: latents.ensemble_length > 0,
)
