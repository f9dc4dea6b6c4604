"""A family of checkpoints as one object, and which families there are.

Loading, statistics, random checkpoints, export and decoding ask the object, and compare no names.
The families are in qvla_offline.families, which is built on this package and on export/; that is
why it is imported here by its name, once somebody asks, as the engines of qvla_ros are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor

from qvla_offline.checkpoints.config import DecodingConfig, PolicyConfig, stated_decoding
from qvla_offline.checkpoints.directory import require_checkpoint
from qvla_offline.checkpoints.layout import Layout, Part
from qvla_offline.checkpoints.model import VisionLanguageModel
from qvla_offline.checkpoints.prompt import openvla_prompt
from qvla_offline.checkpoints.stored import COMPLETE, read_object
from qvla_offline.checkpoints.tensor_source import config_file
from qvla_ros.bundle import DecoderSpec, PromptSpec
from qvla_ros.errors import QvlaError


def _no_parts(decoding: DecodingConfig) -> tuple[Part, ...]:
    return ()


def _unchanged(decoding: DecodingConfig) -> DecodingConfig:
    return decoding


def _as_drawn(name: str, tensor: Tensor, config: PolicyConfig) -> None:
    pass


@dataclass(frozen=True)
class RandomPolicies:
    """How checkpoints with random weights are made.

    variants: {name for --family: what is decoded}. extra_tokens: added to the small tokenizer.
    at_small_size(decoding): the decoding of a small policy. adjust(name, tensor, config): changes a
    drawn tensor in place, where policies would else do nothing worth testing.
    """

    variants: Mapping[str, DecodingConfig]
    extra_tokens: tuple[str, ...] = ()
    at_small_size: Callable[[DecodingConfig], DecodingConfig] = _unchanged
    adjust: Callable[[str, Tensor, PolicyConfig], None] = _as_drawn


@dataclass(frozen=True)
class Family:
    """All that is special about the checkpoints of one code base.

    name, title: in bundles and in messages. kinds: the values of DecodingConfig.kind that are its
    own.

    recognise(directory, config.json): the kind of a checkpoint directory, None if it is not of this
    family. read_layout(directory, config.json, kind): its config, with what the shapes of its files
    imply, and where its parts lie. network(config): the policy with torch's starting weights.

    emit(graph, weights, config, options): writes the policy into an export.graph.GraphBuilder from
    export.weights.CheckpointWeights; options: export.options.ExportOptions. decoder(config,
    options): how the bundle's graph is run. export_options: those of ExportOptions' fields
    that not every family takes, and this one does.

    prompt(directory, config.json, tokenizer): the prompt around an instruction. parts(decoding):
    the modules with a file of their own. float32_modules: prefixes of tensors that are float32
    whatever the dtype of the rest. action_dim_from_statistics: the number of action dimensions is
    in the statistics alone.
    """

    name: str
    title: str
    kinds: tuple[str, ...]
    recognise: Callable[[Path, Mapping[str, Any]], str | None]
    read_layout: Callable[[Path, Mapping[str, Any], str], Layout]
    network: Callable[[PolicyConfig], VisionLanguageModel]
    emit: Callable[..., None]
    decoder: Callable[..., DecoderSpec]
    export_options: tuple[str, ...] = ()
    prompt: Callable[[Path, Mapping[str, Any], Tokenizer], PromptSpec] = openvla_prompt
    parts: Callable[[DecodingConfig], tuple[Part, ...]] = _no_parts
    float32_modules: tuple[str, ...] = ()
    action_dim_from_statistics: bool = False
    random: RandomPolicies = field(default_factory=lambda: RandomPolicies({}))

    def statistics_lengths(self, decoding: DecodingConfig) -> dict[str, int | None]:
        """{part of the statistics: how many numbers}; None where only the statistics know it."""
        action = None if self.action_dim_from_statistics else decoding.action_dim
        proprio = {"proprio": decoding.proprio_dim} if decoding.proprio_dim else {}
        return {"action": action, **proprio}


@cache
def families() -> dict[str, Family]:
    """All families by name. The last one is asked first whether it recognises a checkpoint."""
    listed = import_module("qvla_offline.families").FAMILIES
    return {family.name: family for family in listed}


def register_family(family: Family) -> None:
    """Adds a family to those of this process; QvlaError if its name or a kind of it is taken."""
    taken = [name for known in families().values() for name in (known.name, *known.kinds)]
    for name in (family.name, *family.kinds):
        if name in taken:
            expected = f"none of {', '.join(taken)}, which are taken"
            raise QvlaError("family name", repr(name), expected, "register it under another name")
    families()[family.name] = family


def family_of(kind: str) -> Family:
    """The family that a value of DecodingConfig.kind belongs to."""
    return next(family for family in families().values() if kind in family.kinds)


def read_layout(directory: Path) -> Layout:
    """The config of a checkpoint directory and where its parts lie, by the rules of its family.

    QvlaError names the part that is missing or there twice.
    """
    require_checkpoint(directory)
    file = config_file(directory)
    data = read_object(file)
    stated = stated_decoding(data)
    if "kind" in stated:
        kinds = [kind for family in families().values() for kind in family.kinds]
        if stated["kind"] not in kinds:
            expected = f"one of {', '.join(map(repr, kinds))}"
            raise QvlaError(f"{file}: decoding.kind", repr(stated["kind"]), expected, COMPLETE)
        kind = stated["kind"]
        return family_of(kind).read_layout(directory, data, kind)
    for family in reversed(families().values()):
        recognised = family.recognise(directory, data)
        if recognised is not None:
            return family.read_layout(directory, data, recognised)
    expected = "one of " + ", ".join(family.title for family in families().values())
    raise QvlaError(str(directory), "a checkpoint of no known family", expected, COMPLETE)
