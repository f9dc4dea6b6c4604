"""docs/how_to/add_quantizer.md, followed to the letter with its own example."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.random_checkpoint import random_inputs
from qvla_ros.bundle import load_bundle
from qvla_ros.engines import load_engine
from tests.extending.page import read_page

PAGE = read_page("add_quantizer")


def test_the_page_needs_one_file_and_one_registration() -> None:
    assert (len(PAGE.sources), len(PAGE.registrations)) == (1, 1)


def test_a_quantizer_added_from_the_page_gives_a_checkpoint_and_a_bundle_with_equal_actions(
    checkout: Path,
) -> None:
    PAGE.follow(checkout)
    out = checkout / "out" / "toy"
    assert json.loads((out / "gates.json").read_text())["scheme"]["quantizer"] == "power_of_two"
    quantized = load_checkpoint(out / "fakequant")
    inputs = random_inputs(quantized.config)
    expected = quantized.model(inputs).numpy()
    engine = load_engine(load_bundle(out / "bundle"), "onnxruntime", threads=1)
    named = {name: getattr(inputs, name) for name in ("pixel_values", "input_ids", "proprio")}
    actions = engine.run({name: tensor.numpy() for name, tensor in named.items()})["actions"]
    np.testing.assert_allclose(actions, expected, atol=1e-4)
    before = load_checkpoint(out / "checkpoint").model(inputs).numpy()
    assert np.abs(before - expected).max() > 1e-2  # something was quantized
