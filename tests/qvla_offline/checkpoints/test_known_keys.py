"""Keys beside the weights that would change the original's numbers are used or refused."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from qvla_offline.checkpoints import lora
from qvla_offline.checkpoints.config import parse_config
from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.known_keys import ADAPTER, CONFIG, TEXT_CONFIG, KnownKeys
from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.fakequant import fake_quantize, target_shapes
from qvla_offline.gates import uniform
from qvla_ros.errors import QvlaError, QvlaWarning

BASE = {"vision_backbone_id": "dinosiglip-vit-so-224px"}
WEIGHTS = "model.safetensors"
HEAD = "language_model.lm_head.weight"
EMBEDDING = "language_model.model.embed_tokens.weight"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("known") / "tiny", "openvla")


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "copy"))


def edited(directory: Path, name: str, **changes: Any) -> Path:
    file = directory / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return directory


@pytest.mark.parametrize("keys", [CONFIG, TEXT_CONFIG, ADAPTER])
def test_a_key_with_one_legal_value_is_refused_with_any_other_and_no_key_is_listed_twice(
    keys: KnownKeys,
) -> None:
    assert not keys.read & keys.harmless
    assert not set(keys.only) & (keys.read | keys.harmless)
    for key, values in keys.only.items():
        for value in (*values, None):
            keys.check({key: value}, "file: ")
        with pytest.raises(QvlaError) as caught:
            keys.check({key: "another"}, "file: ")
        assert caught.value.key == f"file: {key}"


def test_a_key_that_no_list_has_is_named_and_what_transformers_writes_is_not() -> None:
    text = {"rms_norm_epsilon": 1e-5, "use_cache": True, "max_position_embeddings": 2048}
    with pytest.warns(QvlaWarning, match=r"text_config\.rms_norm_epsilon: not known") as caught:
        parse_config({**BASE, "text_config": text, "transformers_version": "4.40.1"})
    assert len(caught) == 1


def test_what_the_reference_policy_holds_is_all_known() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", QvlaWarning)
        load_checkpoint("reference_policy", lazily=True)


def test_rope_parameters_of_transformers_5_are_read_and_contradictions_refused() -> None:
    def text(**keys: Any) -> Any:
        return parse_config({**BASE, "text_config": keys}).text

    stated = {"rope_type": "default", "rope_theta": 500000.0}
    assert text(rope_parameters=stated).rope_theta == 500000.0
    assert text(rope_parameters=stated, rope_theta=500000.0) == text(rope_theta=500000.0)
    assert text(rope_scaling={"rope_type": "default"}).rope_theta == 10000.0
    with pytest.raises(QvlaError, match=r"rope_theta: got 10000\.0, and 500000"):
        text(rope_parameters=stated, rope_theta=10000.0)
    with pytest.raises(QvlaError, match=r"rope_parameters\.rope_type: got llama3"):
        text(rope_parameters={**stated, "rope_type": "llama3", "factor": 8.0})


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"use_fused_vision_backbone": False}, "use_fused_vision_backbone"),
        ({"text_config": {"mlp_bias": True}}, "text_config.mlp_bias"),
        ({"text_config": {"head_dim": 64}}, "text_config.head_dim"),
        ({"text_config": {"num_key_value_heads": 5}}, "text_config.num_key_value_heads"),
        ({"text_config": {"num_hidden_layers": 10**9}}, "text_config.num_hidden_layers"),
        ({"text_config": {"hidden_size": 10**400}}, "text_config.hidden_size"),
        ({"image_resize_strategy": "squeeze"}, "image_resize_strategy"),
        ({"image_sizes": [224, 384]}, "image / patch size"),
        ({"decoding": {"chunk_length": 5000}}, "decoding.chunk_length"),
        ({"decoding": {"num_images": 0}}, "decoding.num_images"),
        ({"resize_size": 9000}, "resize_size"),
        ({"quantization_config": {"load_in_4bit": True}}, "quantization_config"),
    ],
)
def test_values_that_change_the_numbers_are_refused_by_key(changes: dict, key: str) -> None:
    with pytest.raises(QvlaError) as caught:
        parse_config({**BASE, **changes})
    assert key in caught.value.key


def test_a_tied_head_is_the_embedding_and_needs_no_tensor_of_its_own(
    copy: Path, tmp_path: Path
) -> None:
    tensors = load_file(copy / WEIGHTS)
    save_file({name: t for name, t in tensors.items() if name != HEAD}, copy / WEIGHTS)
    with pytest.raises(QvlaError, match=HEAD):
        load_checkpoint(copy)
    config = json.loads((copy / "config.json").read_text())
    edited(copy, "config.json", text_config={**config["text_config"], "tie_word_embeddings": True})
    model = load_checkpoint(copy).model
    assert torch.equal(model.language_model.lm_head.weight, tensors[EMBEDDING].float())

    rows = {name: rows for name, (rows, _) in target_shapes(copy).items()}
    out = fake_quantize(copy, uniform(rows, 8), tmp_path / "fake")
    assert HEAD not in load_file(out / WEIGHTS)
    load_checkpoint(out)


def test_stored_tables_of_the_rotary_embedding_change_nothing(copy: Path) -> None:
    tensors = load_file(copy / WEIGHTS)
    before = load_checkpoint(copy).model.state_dict()
    for layer in range(2):
        name = f"language_model.model.layers.{layer}.self_attn.rotary_emb.inv_freq"
        tensors[name] = torch.ones(4)
    save_file(tensors, copy / WEIGHTS)
    after = load_checkpoint(copy).model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"tvf_resize_params": [{"size": [256, 256], "interpolation": 3}] * 2}, "resize_params"),
        ({"tvf_crop_params": [{"output_size": [8, 8]}] * 2}, "crop_params"),
        ({"interpolations": ["bilinear"] * 2}, "interpolation"),
        ({"input_sizes": [[3, 8, 8]] * 2}, "input_sizes"),
        ({"image_resize_strategy": 3}, "image_resize_strategy"),
        ({"tvf_normalize_params": [{"mean": [0] * 3, "std": [0, 1, 1]}] * 2}, "normalize_params"),
    ],
)
def test_an_image_processor_that_is_not_ours_is_refused(copy: Path, changes: dict, key: str):
    edited(copy, "preprocessor_config.json", **changes)
    with pytest.raises(QvlaError) as caught:
        load_checkpoint(copy, lazily=True)
    assert key in caught.value.key


def test_letterboxing_square_images_is_said_to_change_nothing(copy: Path) -> None:
    edited(copy, "preprocessor_config.json", image_resize_strategy="letterbox")
    with pytest.warns(QvlaWarning, match="letterbox changes nothing here"):
        load_checkpoint(copy, lazily=True)


def test_unknown_entries_of_the_statistics_are_named(copy: Path) -> None:
    statistics = json.loads((copy / "dataset_statistics.json").read_text())
    [(name, entry)] = statistics.items()
    entry["action"]["q05"] = entry["action"]["q01"]
    edited(copy, "dataset_statistics.json", **{name: {**entry, "norm_type": "bounds"}})
    with pytest.warns(QvlaWarning) as caught:
        load_checkpoint(copy, lazily=True)
    told = " ".join(str(warning.message) for warning in caught)
    assert f"{name}.norm_type" in told
    assert f"{name}.action.q05" in told


def test_adapters_of_another_kind_are_refused_and_unknown_options_named(tmp_path: Path) -> None:
    file = tmp_path / lora.CONFIG
    file.write_text(json.dumps({"r": 4, "lora_alpha": 8, "new_option": 1}))
    with pytest.warns(QvlaWarning, match="new_option"):
        assert lora.read_adapter_config(tmp_path).scaling == 2
    file.write_text(json.dumps({"r": 4, "init_lora_weights": "pissa"}))
    with pytest.raises(QvlaError, match="init_lora_weights"):
        lora.read_adapter_config(tmp_path)
