"""Checkpoint directories: what is written is read back, and what is broken is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.checkpoints.statistics import key_of_suite
from qvla_offline.visible_files import visible_files
from qvla_ros.errors import QvlaError
from tests.support.random_model import random_model


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", seed=5)


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "copy"))


def test_loading_gives_back_the_float16_weights_and_the_facts(written: Path) -> None:
    checkpoint = load_checkpoint(written)
    original = random_model("tiny", seed=5)
    for name, tensor in checkpoint.model.state_dict().items():
        assert torch.equal(tensor, original.state_dict()[name].half().float()), name
    assert checkpoint.config == original.config
    assert checkpoint.unnorm_key == "libero_object_no_noops"
    assert checkpoint.prompt.append_token_id == checkpoint.tokenizer.token_to_id("▁")
    assert checkpoint.normalizations[0][0] == (0.484375, 0.455078125, 0.40625)
    assert checkpoint.step == 1000
    assert not checkpoint.model.training
    assert checkpoint.statistics["action"]["mask"] == [True] * 6 + [False]


def test_directory_has_the_files_of_a_real_one(written: Path) -> None:
    assert {file.name for file in visible_files(written)} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "added_tokens.json",
        "special_tokens_map.json",
        "preprocessor_config.json",
        "dataset_statistics.json",
        "action_head--1000_checkpoint.pt",
        "proprio_projector--1000_checkpoint.pt",
    }
    head = torch.load(written / "action_head--1000_checkpoint.pt", weights_only=True)
    assert "module.model.mlp_resnet_blocks.0.ffn.1.weight" in head


def test_shards_with_an_index_are_read(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {
        name: f"model-{1 + index % 2:05d}-of-00002.safetensors" for index, name in enumerate(names)
    }
    for shard in set(weight_map.values()):
        save_file(
            {name: tensors[name] for name in names if weight_map[name] == shard}, copy / shard
        )
    (copy / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    model = load_checkpoint(copy).model
    assert torch.equal(model.projector.fc1.weight, tensors["projector.fc1.weight"].float())


@pytest.mark.parametrize(
    "name", ["../elsewhere.safetensors", "/elsewhere.safetensors", "sub/x.safetensors"]
)
def test_shards_outside_the_directory_are_not_followed(copy: Path, name: str) -> None:
    shutil.move(copy / "model.safetensors", copy.parent / "elsewhere.safetensors")
    write(copy, "model.safetensors.index.json", {"weight_map": {"projector.fc1.weight": name}})
    with pytest.raises(QvlaError, match="plain file names"):
        load_checkpoint(copy)


def test_suite_name_finds_its_no_noops_statistics(written: Path) -> None:
    assert (
        load_checkpoint(written, unnorm_key="libero_object").unnorm_key == "libero_object_no_noops"
    )


def two_datasets(path: Path) -> None:
    file = path / "dataset_statistics.json"
    data = json.loads(file.read_text())
    file.write_text(json.dumps({**data, "another": data["libero_object_no_noops"]}))


def wrong_shape(path: Path) -> None:
    file = path / "model.safetensors"
    tensors = load_file(file)
    tensors["projector.fc3.bias"] = torch.zeros(3)
    save_file(tensors, file)


def edit_config(path: Path, **changes: object) -> None:
    file = path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def edit_statistics(path: Path, part: str, **levels: object) -> None:
    file = path / "dataset_statistics.json"
    data = json.loads(file.read_text())
    entry = data["libero_object_no_noops"]
    entry[part] = {
        name: value for name, value in {**entry[part], **levels}.items() if value != "gone"
    }
    file.write_text(json.dumps(data))


def without_first_token(path: Path) -> None:
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    (path / "tokenizer.json").write_text(json.dumps({**tokenizer, "post_processor": None}))


def write(path: Path, name: str, content: object) -> None:
    (path / name).write_text(json.dumps(content))


def only_index(path: Path, content: object) -> None:
    """An index of shards without a whole file beside it, which would be read in its place."""
    (path / "model.safetensors").unlink()
    write(path, "model.safetensors.index.json", content)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda path: write(path, "config.json", []), "config.json"),
        (lambda path: edit_config(path, text_config="llama"), "text_config"),
        (
            lambda path: edit_config(path, text_config={"hidden_size": "wide"}),
            "TextConfig.hidden_size",
        ),
        (lambda path: edit_config(path, vision_configs=[]), "vision_configs"),
        (lambda path: edit_config(path, decoding=[]), "decoding"),
        (lambda path: edit_config(path, decoding={"num_image": 1}), "decoding.num_image"),
        (
            lambda path: edit_config(path, text_config={"num_attention_heads": -1}),
            "num_attention_heads",
        ),
        (lambda path: edit_config(path, resize_size=0), "resize_size"),
        (lambda path: edit_config(path, n_action_bins=1), "n_action_bins"),
        (
            lambda path: torch.save({1: torch.zeros(1)}, path / "action_head--1000_checkpoint.pt"),
            "action_head--1000",
        ),
        (without_first_token, "tokenizer.json"),
        (lambda path: write(path, "dataset_statistics.json", []), "dataset_statistics.json"),
        (
            lambda path: write(path, "dataset_statistics.json", {"a": 1}),
            "dataset_statistics.json: a.action",
        ),
        (
            lambda path: edit_statistics(path, "action", q99="gone"),
            "libero_object_no_noops.action.q99",
        ),
        (
            lambda path: edit_statistics(path, "proprio", min=[0.0]),
            "libero_object_no_noops.proprio.min",
        ),
        (
            lambda path: edit_statistics(path, "action", q01=[9.0] * 7, q99=[1.0] * 7),
            "libero_object_no_noops.action",
        ),
        (lambda path: only_index(path, {}), "weight_map"),
        (
            lambda path: only_index(path, {"weight_map": {"a": 1}}),
            "weight_map.a",
        ),
        (lambda path: write(path, "preprocessor_config.json", []), "preprocessor_config.json"),
        (
            lambda path: write(
                path, "preprocessor_config.json", {"means": [[0, 0, 0]] * 2, "stds": [[1, 1, 1]]}
            ),
            "means and stds[1][1]",
        ),
        (
            lambda path: write(path, "preprocessor_config.json", {}),
            "preprocessor_config.json: means",
        ),
        (
            lambda path: write(
                path,
                "preprocessor_config.json",
                {"tvf_normalize_params": [{"mean": [0, 0, 0]}] * 2},
            ),
            "tvf_normalize_params[0][1]",
        ),
        (lambda path: (path / "config.json").unlink(), "config.json"),
        (lambda path: (path / "model.safetensors").unlink(), "model.safetensors"),
        (
            lambda path: (path / "model.safetensors").write_bytes(b"\x10" + b"\0" * 30),
            "model.safetensors",
        ),
        (lambda path: (path / "tokenizer.json").write_text("{}"), "tokenizer.json"),
        (lambda path: (path / "action_head--1000_checkpoint.pt").unlink(), "action_head--"),
        (
            lambda path: (path / "action_head--1000_checkpoint.pt").write_bytes(b"junk"),
            "action_head--1000",
        ),
        (lambda path: (path / "proprio_projector--7_checkpoint.pt").touch(), "proprio_projector--"),
        (two_datasets, "unnorm_key"),
        (wrong_shape, "projector.fc3.bias"),
        (
            lambda path: edit_config(path, text_config={"model_type": "phi"}),
            "text_config.model_type",
        ),
        (lambda path: edit_config(path, vision_configs=[{"timm_id": "x"}]), "VisionConfig"),
    ],
)
def test_a_broken_directory_is_refused_by_name(
    copy: Path, damage: Callable[[Path], object], named: str
) -> None:
    damage(copy)
    with pytest.raises(QvlaError) as caught:
        load_checkpoint(copy)
    assert named in caught.value.key


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused(written: Path, device: str) -> None:
    with pytest.raises(QvlaError, match=rf"device: got {device}"):
        load_checkpoint(written, device=device)


def test_unknown_dataset_key_lists_the_known_ones(written: Path) -> None:
    with pytest.raises(QvlaError, match="libero_object_no_noops"):
        load_checkpoint(written, unnorm_key="bridge")


def test_components_are_never_unpickled(copy: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return open, (str(tmp_path / "trapped"), "w")

    torch.save({"module.model.fc1.weight": Trap()}, copy / "action_head--1000_checkpoint.pt")
    with pytest.raises(QvlaError):
        load_checkpoint(copy)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    ("keys", "suite", "expected"),
    [
        (["libero_object_no_noops", "libero_10_no_noops"], "libero_10", "libero_10_no_noops"),
        (["libero_goal", "libero_goal_no_noops"], "libero_goal", "libero_goal"),
        (["mine"], "libero_goal", None),
    ],
)
def test_the_statistics_of_a_suite_are_found_by_its_name(
    tmp_path: Path, keys: list[str], suite: str, expected: str | None
) -> None:
    (tmp_path / "dataset_statistics.json").write_text(json.dumps({key: {} for key in keys}))
    assert key_of_suite(tmp_path, suite) == expected


@pytest.mark.parametrize("keys", [["libero_spatial_no_noops"], ["bridge_orig", "fractal"]])
def test_a_checkpoint_of_another_suite_is_refused_with_those_that_it_has(
    tmp_path: Path, keys: list[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"norm_stats": {key: {} for key in keys}}))
    with pytest.raises(QvlaError, match=keys[0]):
        key_of_suite(tmp_path, "libero_object")


def test_nulls_of_a_config_padding_of_a_tokenizer_and_parameters_in_a_part_are_as_good_as_none(
    copy: Path, written: Path
) -> None:
    plain = load_checkpoint(written)
    config = json.loads((copy / "config.json").read_text())
    edit_config(copy, text_config={**config["text_config"], "num_key_value_heads": None})
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    direction = {
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<unk>",
    }
    tokenizer["padding"] = {"strategy": {"Fixed": 64}, **direction}
    write(copy, "tokenizer.json", tokenizer)
    part = copy / "action_head--1000_checkpoint.pt"
    state = torch.load(part, weights_only=True)
    torch.save({name: torch.nn.Parameter(tensor) for name, tensor in state.items()}, part)
    loaded = load_checkpoint(copy)
    assert loaded.config.text.num_key_value_heads == loaded.config.text.num_attention_heads
    text = "In: What action should the robot take to pick up the milk?"
    assert loaded.tokenizer.encode(text).ids == plain.tokenizer.encode(text).ids
    assert not any(parameter.isnan().any() for parameter in loaded.model.action_head.parameters())
