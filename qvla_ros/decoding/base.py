"""The base of all decoders: the plain one, guesses at tokens, and what a kind of decoder states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qvla_ros.errors import QvlaError
from qvla_ros.preprocess import RANGE_EPSILON
from qvla_ros.specifications import ActionSpec, PromptSpec

Arrays = Mapping[str, NDArray[Any]]


class Runner(Protocol):
    """An engine, as far as a decoder needs it (qvla_ros.engines.Engine)."""

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]: ...


class Decoder:
    """The plain case: one run gives the normalised actions. One caller at a time.

    range_epsilon: what the policy's code base adds to a range before it un-normalises actions (see
    qvla_ros.actions.unnormalize).
    """

    range_epsilon = RANGE_EPSILON

    def __init__(self, prompt: PromptSpec) -> None:
        self._prompt = prompt

    def prompt(self, instruction: str) -> PromptSpec:
        """The prompt of the next inference."""
        return self._prompt

    def run(self, engine: Runner, inputs: Arrays) -> NDArray[Any]:
        """Normalised actions [1, K, A] for one observation.

        An engine that reads no input (zero, sine, replay) gives `actions` at once.
        """
        outputs = engine.run(inputs)
        if "actions" not in outputs:
            raise QvlaError(
                "policy graph outputs", sorted(outputs), "actions", "export the bundle again"
            )
        return outputs["actions"]

    def reset(self) -> None:
        """Forgets earlier observations; random numbers go on."""


class Guesses:
    """Runs a graph that says what comes after each token of a guess, until it confirms the guess.

    Each run gets at least one token more right, so `count` runs are enough. The tokens of the
    observation before are the first guess.
    """

    def __init__(self, output: str, count: int) -> None:
        self._output = output
        self._count = count
        self._guess: NDArray[Any] = np.zeros((1, count - 1), np.int64)

    def run(self, engine: Runner, inputs: Arrays) -> Mapping[str, NDArray[Any]]:
        for _ in range(self._count):
            outputs = engine.run({**inputs, "guess": self._guess})
            if self._output not in outputs:
                break
            following = outputs[self._output][:, :-1]
            if np.array_equal(following, self._guess):
                break
            self._guess = following
        return outputs


class Decoded(Protocol):
    """The entries of a manifest that a decoder is made from (qvla_ros.manifest.Manifest)."""

    @property
    def prompt(self) -> PromptSpec: ...

    @property
    def actions(self) -> ActionSpec: ...

    @property
    def decoder(self) -> Any: ...


def never(settings: Any) -> bool:
    return False


def always(settings: Any) -> bool:
    return True


@dataclass(frozen=True)
class DecoderKind:
    """One way to run a policy graph: all that the rest of the program asks about it.

    name: `decoder.kind` in a manifest. make(manifest, tokenizer): its decoder; the tokenizer is the
    bundle's (tokenizers.Tokenizer). describe(settings): words for `qvla inspect`. settings: the
    entry of `decoder` in the manifest that it needs, None for none. decodes_tokens: the graph
    decodes tokens one after the other, so that it has a `guessed` form too. draws_noise(settings):
    whether its actions depend on random numbers. one_action(settings): whether each chunk is one
    action.
    """

    name: str
    make: Callable[[Decoded, Any], Decoder]
    describe: Callable[[Any], str]
    settings: str | None = None
    decodes_tokens: bool = False
    draws_noise: Callable[[Any], bool] = never
    one_action: Callable[[Any], bool] = never
