"""A tiny bundle made by hand: two 32-pixel cameras, LIBERO's 8 numbers in, chunks of 4 actions out.

Its graph copies the first 7 normalised proprioceptive numbers into every action of the chunk, so a
test can say what must come out. Nothing here is trained.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qvla_ros.bundle import (
    ActionSpec,
    CameraSpec,
    Manifest,
    PromptSpec,
    ProprioceptionSpec,
    QuantizationSummary,
    save_bundle,
)
from qvla_ros.simulation import specification as libero

CHUNK_LENGTH = 4
CAMERA_SIZE = 32
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(scope="session")
def manifest() -> Manifest:
    cameras = tuple(
        CameraSpec(name, CAMERA_SIZE, CAMERA_SIZE, True, None, 16, 0.9, (HALF,))
        for name in libero.CAMERA_NAMES
    )
    actions = ActionSpec(
        names=libero.ACTION_NAMES,
        kind=libero.ACTION_KIND,
        frame=libero.POSE_FRAME,
        units=libero.ACTION_UNITS,
        gripper_index=libero.GRIPPER_INDEX,
        gripper_convention="opening_fraction",
        chunk_length=CHUNK_LENGTH,
        control_period_s=libero.CONTROL_PERIOD_S,
        normalization="q99",
        limits=libero.ACTION_LIMITS,
    )
    return Manifest(
        family="openvla-oft",
        cameras=cameras,
        proprioception=ProprioceptionSpec(libero.PROPRIOCEPTION_NAMES, "q99"),
        prompt=PromptSpec("In: What action should the robot take to {instruction}?\nOut:", True, 5),
        actions=actions,
        quantization=QuantizationSummary("none", None, 16.0, 16.0, 1, 1, None),
    )


@pytest.fixture(scope="session")
def make_bundle(
    manifest: Manifest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path], Path]:
    """make_bundle(directory) writes the tiny bundle there and returns the directory."""
    parts = tmp_path_factory.mktemp("parts")
    _write_graph(parts / "policy.onnx", manifest)
    _write_tokenizer(parts / "tokenizer.json")
    (parts / "statistics.json").write_text(
        json.dumps(
            {
                "action": {**_flat_statistics(7), "mask": [True] * 6 + [False]},
                "proprio": _flat_statistics(8),
            }
        )
    )

    def make(directory: Path) -> Path:
        names = ("policy.onnx", "tokenizer.json", "statistics.json")
        return save_bundle(directory, manifest, {name: parts / name for name in names}).directory

    return make


@pytest.fixture(scope="session")
def bundle_dir(
    make_bundle: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny bundle; shared, do not change it."""
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


def _flat_statistics(size: int) -> dict[str, list[float]]:
    low = {name: [-1.0] * size for name in ("min", "q01")}
    high = {name: [1.0] * size for name in ("max", "q99")}
    return {**low, **high, "mean": [0.0] * size, "std": [1.0] * size}


def _write_graph(path: Path, manifest: Manifest) -> None:
    from onnx import TensorProto, checker, helper, numpy_helper, save

    channels = 3 * len(manifest.cameras)
    inputs = [
        helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, [1, channels, 16, 16]),
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "L"]),
        helper.make_tensor_value_info("proprio", TensorProto.FLOAT, [1, 8]),
    ]
    output = helper.make_tensor_value_info("actions", TensorProto.FLOAT, [1, CHUNK_LENGTH, 7])
    constants = {
        "starts": [0],
        "ends": [7],
        "axes": [1],
        "row": [1, 1, 7],
        "chunk": [1, CHUNK_LENGTH, 7],
    }
    nodes = [
        helper.make_node("Slice", ["proprio", "starts", "ends", "axes"], ["first"]),
        helper.make_node("Reshape", ["first", "row"], ["one_action"]),
        helper.make_node("Expand", ["one_action", "chunk"], ["actions"]),
    ]
    initializers = [
        numpy_helper.from_array(np.array(value, np.int64), name)
        for name, value in constants.items()
    ]
    graph = helper.make_graph(nodes, "tiny_policy", inputs, [output], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    save(model, path)


def _write_tokenizer(path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<unk>", "<s>", "</s>", "In", "Out", ":", "pick", "up", "the", "milk"]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    tokenizer.save(str(path))
