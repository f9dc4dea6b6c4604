"""Finds the parts of a checkpoint: the `.pt` files beside its main weights.

OpenVLA has none; OpenVLA-OFT adds `<part>--<step>_checkpoint.pt`; UniVLA adds `action_decoder*.pt`.
A family names those that its checkpoints must have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qvla_offline.checkpoints import lora
from qvla_offline.checkpoints.config import PolicyConfig
from qvla_offline.checkpoints.film import FILM_PART, film_tensors
from qvla_offline.checkpoints.stored import component_tensors
from qvla_offline.checkpoints.tensor_source import ADAPTER_FOLDER, TensorSource, open_tensors
from qvla_ros.errors import QvlaError

EMBEDDING = "language_model.model.embed_tokens.weight"
HEAD = "language_model.lm_head.weight"  # the embedding where config.json ties them


@dataclass(frozen=True)
class Part:
    """A module of the network whose weights have a `.pt` file of their own.

    name: of the module. pattern: how its file is called, for messages. fits: whether a file name is
    that of this part. saved_as: the name that it is written under, with {step}. in_module: whether
    its keys begin with `module.`, as DistributedDataParallel saves them.
    """

    name: str
    pattern: str
    fits: Callable[[str], bool]
    saved_as: str
    in_module: bool = True

    def files(self, directory: Path) -> list[Path]:
        """Every file of this part."""
        return sorted(file for file in directory.iterdir() if self.fits(file.name))

    def file(self, directory: Path) -> Path:
        """The one file of this part; QvlaError if there is none or several."""
        found = self.files(directory)
        if len(found) == 1:
            return found[0]
        names = ", ".join(file.name for file in found) or "no such file"
        fix = "copy it here: the one of the training step that the weights are of"
        if found:
            fix = (
                "keep the one of the training step that the weights are of, and move "
                "the others away"
            )
        raise QvlaError(f"{directory}/{self.pattern}", names, f"exactly one {self.pattern}", fix)


@dataclass(frozen=True)
class Layout:
    """The config of a checkpoint directory, and its files beside the main weights.

    parts: {module: its `.pt` file}. film_file: that of the ViTs which FiLM conditions, if any.
    """

    directory: Path
    config: PolicyConfig
    parts: Mapping[str, Path] = field(default_factory=dict)
    film_file: Path | None = None

    def open_tensors(self) -> TensorSource:
        """All tensors by the names of our model."""
        tensors = self._stored_tensors()
        if self.config.text.tie_word_embeddings and EMBEDDING in tensors:
            return TensorSource(tensors.stored | {HEAD: tensors.stored[EMBEDDING]})
        return tensors

    def _stored_tensors(self) -> TensorSource:
        if self.film_file is None:
            return open_tensors(self.directory, self.parts)
        # the FiLM file has those
        tensors = open_tensors(self.directory, self.parts, without=f"{FILM_PART}.")
        adapter = self.directory / ADAPTER_FOLDER
        has_adapter = (adapter / lora.CONFIG).is_file()
        scaling = lora.read_adapter_config(adapter).scaling if has_adapter else None
        return TensorSource(tensors.stored | film_tensors(self.film_file, scaling))

    @property
    def step(self) -> int | None:
        """The training step in a part's file name; None for `latest` and without parts."""
        words = [file.name.partition("--")[2].partition("_")[0] for file in self.parts.values()]
        return next((int(word) for word in words if word.isdigit()), None)


def part_shapes(parts: Mapping[str, Path]) -> dict[str, tuple[int, ...]]:
    """{tensor: shape} of all parts, by the names of our model."""
    return {
        name: stored.shape
        for part, file in parts.items()
        for name, stored in component_tensors(file, part).items()
    }


def part_names(file: Path, part: str) -> Iterable[str]:
    """The tensors in a part's file; none if it cannot be read, which loading it reports."""
    try:
        return component_tensors(file, part)
    except QvlaError:
        return ()


def require_shape(
    directory: Path, shapes: Mapping[str, tuple[int, ...]], name: str
) -> tuple[int, ...]:
    """The shape of a tensor that every policy of a family has. QvlaError if it is not there."""
    if name not in shapes:
        raise QvlaError(
            f"{directory}: {name}",
            "no such tensor",
            "it, as the LIBERO policies of its family have it",
            "use a checkpoint of a supported kind",
        )
    return shapes[name]
