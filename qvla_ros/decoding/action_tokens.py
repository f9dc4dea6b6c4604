"""OpenVLA: the graph gives one action as tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from qvla_ros.actions import token_actions
from qvla_ros.decoding.base import Arrays, Decoded, Decoder, DecoderKind, Guesses, Runner, always
from qvla_ros.specifications import PromptSpec, require

OUTPUT = "action_tokens"


@dataclass(frozen=True)
class TokenSpec:
    """OpenVLA's action tokens: `vocabulary` is one past the last, see
    qvla_ros.actions.token_actions.
    """

    vocabulary: int
    num_bins: int

    def __post_init__(self) -> None:
        require(
            2 <= self.num_bins <= self.vocabulary,
            "decoder.tokens.num_bins",
            self.num_bins,
            "2 to the vocabulary",
        )


class TokenDecoder(Decoder):
    """One action [1, 1, A] from `action_tokens` int64 [1, A]."""

    range_epsilon = 0.0

    def __init__(self, prompt: PromptSpec, spec: TokenSpec, guesses: Guesses | None) -> None:
        super().__init__(prompt)
        self._spec = spec
        self._guesses = guesses

    def run(self, engine: Runner, inputs: Arrays) -> NDArray[Any]:
        outputs = engine.run(inputs) if self._guesses is None else self._guesses.run(engine, inputs)
        if OUTPUT not in outputs:
            return outputs["actions"]
        actions = token_actions(outputs[OUTPUT], self._spec.vocabulary, self._spec.num_bins)
        return actions[:, None]


def _make(manifest: Decoded, tokenizer: Any) -> TokenDecoder:
    spec = manifest.decoder
    guesses = Guesses(OUTPUT, len(manifest.actions.names)) if spec.guessed else None
    return TokenDecoder(manifest.prompt, spec.tokens, guesses)


ACTION_TOKENS = DecoderKind(
    "action_tokens",
    make=_make,
    describe=lambda tokens: f"action tokens, {tokens.num_bins} bins",
    settings="tokens",
    decodes_tokens=True,
    one_action=always,
)
