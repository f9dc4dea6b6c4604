"""bundle.json as dataclasses: what a policy sees, reads and commands, and how its graph is run.

Constructing a specification validates it. Reading and writing the file: qvla_ros.bundle.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from qvla_ros.decoding import KINDS, DecoderKind
from qvla_ros.decoding.action_tokens import TokenSpec
from qvla_ros.decoding.diffusion import DiffusionSpec
from qvla_ros.decoding.univla import LatentSpec
from qvla_ros.specifications import (
    ActionSpec,
    CameraSpec,
    PromptSpec,
    ProprioceptionSpec,
    QuantizationSummary,
    require,
    unique,
)

MANIFEST_NAME = "bundle.json"


@dataclass(frozen=True)
class DecoderSpec:
    """The way in which the graph is run, and what its outputs are.

    kind: "l1_chunk": once, `actions` come out. "action_tokens": once, `action_tokens` come out, see
    `tokens`. "diffusion": once per denoising step, `noise` comes out, see `diffusion`. "univla":
    once, with noise to draw tokens by, `actions` and `latent_tokens` come out, see `latents`.
    guessed: a kind that decodes tokens also takes a `guess` of all tokens but the last, and is run
    until it confirms them.
    """

    kind: str = "l1_chunk"
    tokens: TokenSpec | None = None
    diffusion: DiffusionSpec | None = None
    latents: LatentSpec | None = None
    guessed: bool = False

    def __post_init__(self) -> None:
        kinds = ", ".join(map(repr, KINDS))
        require(
            self.kind in KINDS, f"{MANIFEST_NAME}.decoder.kind", repr(self.kind), f"one of {kinds}"
        )
        fits = not self.guessed or self.rules.decodes_tokens
        require(fits, "decoder.guessed", self.guessed, f"false with kind {self.kind}")
        for name in (field.name for field in fields(self)):
            if name in ("kind", "guessed"):
                continue
            there = getattr(self, name) is not None
            needed = name == self.rules.settings
            expected = f"{'an object' if needed else 'null'} with kind {self.kind}"
            require(there == needed, f"decoder.{name}", "an object" if there else "null", expected)

    @property
    def rules(self) -> DecoderKind:
        """What holds for every decoder of this kind."""
        return KINDS[self.kind]

    @property
    def settings(self) -> Any:
        """The entry that `kind` needs; None where it needs none."""
        return None if self.rules.settings is None else getattr(self, self.rules.settings)

    @property
    def unrolled(self) -> bool:
        """Whether the graph uses its weights once for each token that it decodes."""
        return self.rules.decodes_tokens and not self.guessed

    @property
    def draws_noise(self) -> bool:
        """Whether the actions depend on random numbers, not on the observations alone."""
        return self.rules.draws_noise(self.settings)

    @property
    def one_action(self) -> bool:
        """Whether each chunk is one action."""
        return self.rules.one_action(self.settings)

    def describe(self) -> str:
        """A few words for `qvla inspect`."""
        text = self.rules.describe(self.settings)
        return text + (", guessed and confirmed" if self.guessed else "")


@dataclass(frozen=True)
class Manifest:
    """Everything in bundle.json but the schema version, the files' hashes and the identity."""

    family: str
    cameras: tuple[CameraSpec, ...]
    proprioception: ProprioceptionSpec | None
    prompt: PromptSpec
    actions: ActionSpec
    quantization: QuantizationSummary
    decoder: DecoderSpec = DecoderSpec()

    def __post_init__(self) -> None:
        names = tuple(camera.name for camera in self.cameras)
        require(unique(names), "cameras", list(names), "distinct names, at least one camera")
        sizes = sorted({camera.input_size for camera in self.cameras})
        require(len(sizes) == 1, "cameras.input_size", sizes, "one for all: the graph takes one")
        length = self.actions.chunk_length
        require(
            length == 1 or not self.decoder.one_action,
            "actions.chunk_length",
            length,
            f"1 with decoder {self.decoder.kind}",
        )
