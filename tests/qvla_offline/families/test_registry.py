"""A family is one object: once registered, its checkpoints load, are scored, exported and run."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from qvla_offline.checkpoints.config import DecodingConfig, PolicyConfig, parse_config
from qvla_offline.checkpoints.family import (
    Family,
    RandomPolicies,
    families,
    family_of,
    register_family,
)
from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.layout import Layout
from qvla_offline.checkpoints.model import PolicyInputs
from qvla_offline.checkpoints.openvla import CausalModel
from qvla_offline.checkpoints.random_checkpoint import random_inputs, write_random_checkpoint
from qvla_offline.cli import random_checkpoint
from qvla_offline.export.inputs import embed, emit_patches, graph_inputs, to_float32
from qvla_offline.export.llama import LlamaDecoder
from qvla_offline.export.modules import linear, slice_axis
from qvla_offline.export.options import ExportOptions
from qvla_offline.families import FAMILIES
from qvla_offline.families.openvla import OPENVLA
from qvla_offline.recipe import run_recipe
from qvla_ros.bundle import DecoderSpec
from qvla_ros.errors import QvlaError
from qvla_ros.policy import load_policy

MARK = "toy.txt"


class Toy(CausalModel):
    """The last hidden state gives one action."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__(config)
        self.reader = nn.Linear(config.text.hidden_size, config.decoding.action_dim)

    def forward(self, inputs: PolicyInputs) -> Tensor:
        hidden = self.language_model.model.causal(self.prefix(inputs))
        return self.reader(hidden[:, -1:])


def emit(graph, weights, config: PolicyConfig, options: ExportOptions) -> None:
    pixels, ids = graph_inputs(graph, config)
    patches = emit_patches(graph, weights, config, pixels)
    prompt = embed(graph, weights, ids)
    first = slice_axis(graph, prompt, 1, 0, 1)
    rest = slice_axis(graph, prompt, 1, 1, None)
    decoder = LlamaDecoder(graph, weights, config.text, 300, causal=True)
    hidden = decoder(graph.op("Concat", first, patches, rest, axis=1), (-1, None))
    actions = to_float32(graph, linear(graph, weights, "reader", hidden))
    graph.output(actions, "actions", np.float32, [1, 1, config.decoding.action_dim])


def recognise(directory: Path, data: Any) -> str | None:
    return "toy" if (directory / MARK).is_file() else None


def read_layout(directory: Path, data: Any, kind: str) -> Layout:
    implied = {"kind": kind, "chunk_length": 1, "num_images": 1, "proprio_dim": 0}
    return Layout(directory, parse_config(data, implied))


TOY = Family(
    name="toy",
    title="Toy",
    kinds=("toy",),
    recognise=recognise,
    read_layout=read_layout,
    network=Toy,
    emit=emit,
    decoder=lambda config, options: DecoderSpec("l1_chunk"),
    random=RandomPolicies(
        variants={"toy": DecodingConfig("toy", chunk_length=1, proprio_dim=0, num_images=1)}
    ),
)


@pytest.fixture
def toy() -> Iterator[Family]:
    register_family(TOY)
    yield TOY
    del families()["toy"]


@pytest.fixture
def checkpoint(toy: Family, tmp_path: Path) -> Path:
    path = write_random_checkpoint(tmp_path / "checkpoint", "toy")
    (path / MARK).touch()
    return path


def test_a_registered_family_is_scored_quantized_exported_and_run(
    checkpoint: Path, tmp_path: Path
) -> None:
    loaded = load_checkpoint(checkpoint)
    assert (loaded.family.name, type(loaded.model)) == ("toy", Toy)
    Image.fromarray(np.full((256, 256, 3), 90, np.uint8)).save(tmp_path / "image.png")
    line = {"text": "pick up the milk", "image": "image.png", "wrist_image": "image.png"}
    (tmp_path / "calibration.jsonl").write_text(json.dumps({**line, "proprio": [0.0] * 8}))
    recipe = {
        "checkpoint": "checkpoint",
        "calibration": "calibration.jsonl",
        "out_dir": "out",
        "sensitivity": {"probes": 1, "max_samples": 1},
        "gates": {"target_avg_bits": 8.0, "cost": "stored"},
        "scheme": {"group_size": 16},
        "fakequant": True,
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    out = run_recipe(tmp_path / "recipe.yaml")

    policy = load_policy(out / "bundle", "onnxruntime", threads=1)
    assert (policy.bundle.family, policy.bundle.decoder.kind) == ("toy", "l1_chunk")
    inputs = random_inputs(loaded.config, seed=1)
    given = {
        "pixel_values": inputs.pixel_values.numpy(),
        "input_ids": inputs.input_ids.numpy(),
    }
    answer = policy.engine.run(given)["actions"]
    policy.close()
    expected = load_checkpoint(out / "fakequant").model(inputs)
    torch.testing.assert_close(torch.from_numpy(answer), expected, atol=2e-3, rtol=0)


def test_what_a_family_does_not_recognise_stays_with_the_others(
    checkpoint: Path, tmp_path: Path
) -> None:
    (checkpoint / MARK).unlink()
    with pytest.raises(QvlaError, match=r"reader"):
        load_checkpoint(checkpoint)  # OpenVLA takes it, and has no such tensor
    other = write_random_checkpoint(tmp_path / "other", "openvla_oft")
    assert load_checkpoint(other).family.name == "openvla-oft"


def test_a_kind_that_config_json_states_wins_over_what_is_recognised(
    checkpoint: Path,
) -> None:
    (checkpoint / MARK).unlink()
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "decoding": {"kind": "toy"}}))
    assert load_checkpoint(checkpoint).family.name == "toy"


def test_a_name_or_a_kind_is_taken_once(toy: Family) -> None:
    with pytest.raises(QvlaError, match="family name: got 'toy'"):
        register_family(toy)
    with pytest.raises(QvlaError, match="family name: got 'action_tokens'"):
        register_family(replace(OPENVLA, name="another"))


def test_each_kind_of_decoding_belongs_to_one_family() -> None:
    kinds = [kind for family in families().values() for kind in family.kinds]
    assert len(kinds) == len(set(kinds))
    names = {
        "action_tokens": "openvla",
        "l1_chunk": "openvla-oft",
        "diffusion": "openvla-oft",
        "univla": "univla",
    }
    assert names.items() <= {kind: family_of(kind).name for kind in kinds}.items()


def test_the_help_of_random_checkpoint_names_every_policy_that_it_can_make() -> None:
    parser = argparse.ArgumentParser()
    random_checkpoint.add_arguments(parser)
    (option,) = [action for action in parser._actions if action.dest == "family"]
    named = set(re.findall(r"\w+", option.help or "")) - {"default", "or"}
    assert named == {name for family in FAMILIES for name in family.random.variants}
