"""A family is recognised by its files and read whole; a missing part is refused by name."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from qvla_offline.checkpoints.config import DecodingConfig
from qvla_offline.checkpoints.family import read_layout
from qvla_offline.checkpoints.film import film_tensors
from qvla_offline.checkpoints.io import empty_policy, load_checkpoint
from qvla_offline.checkpoints.random_checkpoint import (
    plausible_statistics,
    random_config,
    random_inputs,
    random_tensors,
    random_tokenizer,
    variants,
    write_random_checkpoint,
)
from qvla_offline.checkpoints.save import Belongings, write_checkpoint
from qvla_offline.checkpoints.stored import main_tensors
from qvla_offline.checkpoints.targets import quantization_targets
from qvla_offline.checkpoints.tokenizer import padded_vocabulary
from qvla_ros.errors import QvlaError, QvlaWarning
from tests.support.random_model import random_model

# The family of each variant; another one is called as its family is.
NAMES = {
    "openvla": "openvla",
    "openvla_oft": "openvla-oft",
    "openvla_oft_diffusion": "openvla-oft",
    "openvla_oft_film": "openvla-oft",
    "univla": "univla",
}


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {family: write_random_checkpoint(root / family, family, seed=4) for family in variants()}


@pytest.mark.parametrize("family", variants())
def test_a_directory_gives_back_the_model_that_was_written(
    directories: dict[str, Path], family: str
) -> None:
    checkpoint = load_checkpoint(directories[family])
    original = random_model("tiny", 4, family)
    assert checkpoint.config == original.config
    assert type(checkpoint.model) is type(original)
    expected = original.state_dict()
    assert set(expected) == set(checkpoint.model.state_dict())
    for name, tensor in checkpoint.model.state_dict().items():
        assert torch.equal(tensor, expected[name].half().float()), name
    assert checkpoint.family.name == NAMES.get(family, family)
    targets = [name for name in quantization_targets(empty_policy(directories[family]))]
    assert any(".scale" in name for name in targets) == (family == "openvla_oft_film")


def test_films_vision_file_is_wrapped_as_in_training(directories: dict[str, Path]) -> None:
    state = torch.load(
        directories["openvla_oft_film"] / "vision_backbone--1000_checkpoint.pt", weights_only=True
    )
    block = "vision_backbone.featurizer.blocks.0"
    shapes = {
        name.removeprefix(f"{block}."): tuple(t.shape)
        for name, t in state.items()
        if name.startswith(block)
    }
    assert shapes["block.attn.qkv.base_layer.weight"] == (96, 32)
    assert shapes["block.attn.qkv.lora_A.default.weight"] == (32, 32)
    assert shapes["block.attn.qkv.lora_B.default.weight"] == (96, 32)
    assert shapes["scale.weight"] == (32, 64)
    assert "block.ls1.scale_factor" in shapes
    assert tuple(
        state["vision_backbone.featurizer.patch_embed.proj.lora_B.default.weight"].shape
    ) == (32, 32, 1, 1)


def test_films_adapters_are_merged_with_half_their_product_unrounded(
    directories: dict[str, Path], tmp_path: Path
) -> None:
    file = directories["openvla_oft_film"] / "vision_backbone--1000_checkpoint.pt"
    state = torch.load(file, weights_only=True)
    layer = "vision_backbone.featurizer.blocks.1.block.mlp.fc1"
    state[f"{layer}.lora_B.default.weight"] += 0.5
    torch.save(state, tmp_path / "vision_backbone--2_checkpoint.pt")
    ours = film_tensors(tmp_path / "vision_backbone--2_checkpoint.pt")
    base = state[f"{layer}.base_layer.weight"].float()
    change = (
        state[f"{layer}.lora_B.default.weight"].float()
        @ state[f"{layer}.lora_A.default.weight"].float()
    )
    merged = ours["vision_backbone.featurizer.blocks.1.mlp.fc1.weight"].read()
    torch.testing.assert_close(merged, base + 0.5 * change)  # float32, where the file has float16
    assert (merged - base).abs().max() > 0.01


def test_an_adapters_share_of_the_vits_that_films_file_holds_is_left_out(
    directories: dict[str, Path], tmp_path: Path
) -> None:
    base = directories["openvla_oft_film"]
    path = Path(shutil.copytree(base, tmp_path / "unmerged"))
    for name in ("model.safetensors", "config.json"):
        (path / name).unlink()
    layers = {
        "language_model.model.layers.0.mlp.up_proj": base_shape(
            base, "language_model.model.layers.0.mlp.up_proj"
        ),
        "vision_backbone.vision_backbone.featurizer.blocks.0.block.attn.qkv": (96, 32),
    }
    factors = {}
    for layer, (rows, columns) in layers.items():
        factors[f"base_model.model.{layer}.lora_A.weight"] = torch.ones(2, columns).half()
        factors[f"base_model.model.{layer}.lora_B.weight"] = torch.ones(rows, 2).half()
    adapter = path / "lora_adapter"
    adapter.mkdir()
    save_file(factors, adapter / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 1, "base_model_name_or_path": str(base)}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    whole = load_checkpoint(base, lazily=True)
    unmerged = load_checkpoint(path, lazily=True)
    changed = {
        name
        for name in whole.tensors
        if not torch.equal(whole.tensors[name], unmerged.tensors[name].half())
    }
    assert "language_model.model.layers.0.mlp.up_proj.weight" in changed
    assert all(name.startswith(("language_model.", "vision_backbone.")) for name in changed)
    assert not any(
        name.startswith("language_model.") for name in changed - {f"{next(iter(layers))}.weight"}
    )


def base_shape(directory: Path, layer: str) -> tuple[int, ...]:
    return main_tensors(directory)[f"{layer}.weight"].shape


def test_what_no_file_says_is_taken_from_the_released_robots_and_printed(
    directories: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.warns(
        QvlaWarning, match=r"chunk_length 8, num_images 2, normalization q99.*decoding"
    ):
        read_layout(directories["openvla_oft"])
    path = Path(shutil.copytree(directories["openvla_oft"], tmp_path / "stated"))
    config = json.loads((path / "config.json").read_text())
    config["decoding"] = {"chunk_length": 8, "num_images": 1, "normalization": "q99"}
    (path / "config.json").write_text(json.dumps(config))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_layout(path).config.decoding.num_images == 1


def test_a_part_that_is_there_twice_is_to_be_chosen_by_its_step(
    copy: Callable[[str], Path],
) -> None:
    path = copy("univla")
    (path / "action_decoder.pt").rename(path / "action_decoder-30000.pt")
    shutil.copy(path / "action_decoder-30000.pt", path / "action_decoder-60000.pt")
    with pytest.raises(QvlaError, match="training step") as caught:
        read_layout(path)
    assert "action_decoder-30000.pt, action_decoder-60000.pt" in str(caught.value)


@pytest.fixture
def copy(directories: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda family: Path(shutil.copytree(directories[family], tmp_path / family))


@pytest.mark.parametrize(
    ("family", "missing", "named"),
    [
        ("openvla_oft", "action_head--1000_checkpoint.pt", "action_head--*_checkpoint.pt"),
        (
            "openvla_oft_diffusion",
            "action_head--1000_checkpoint.pt",
            "action_head--*_checkpoint.pt",
        ),
        ("univla", "action_decoder.pt", "action_decoder*.pt"),
    ],
)
def test_a_missing_part_is_named(
    copy: Callable[[str], Path], family: str, missing: str, named: str
) -> None:
    path = copy(family)
    (path / missing).unlink()
    with pytest.raises(QvlaError) as caught:
        load_checkpoint(path)
    assert caught.value.key.endswith(named)


def test_a_part_of_another_shape_is_named(copy: Callable[[str], Path]) -> None:
    path = copy("univla")
    state = torch.load(path / "action_decoder.pt", weights_only=True)
    state["visual_pool.latents"] = torch.zeros(2, 32)
    torch.save(state, path / "action_decoder.pt")
    with pytest.raises(QvlaError, match=r"action_decoder\.visual_pool\.latents"):
        load_checkpoint(path)


def test_a_decoder_of_another_kind_is_refused(copy: Callable[[str], Path]) -> None:
    path = copy("univla")
    torch.save({"attn_pool.latents": torch.zeros(1, 32)}, path / "action_decoder.pt")
    with pytest.raises(QvlaError, match="LIBERO"):
        load_checkpoint(path)


def test_an_unknown_robot_must_be_described(copy: Callable[[str], Path]) -> None:
    path = copy("openvla_oft")
    (path / "proprio_projector--1000_checkpoint.pt").unlink()
    with pytest.raises(QvlaError, match="7 actions and 0 proprioceptive numbers"):
        read_layout(path)
    state_decoding(path, chunk_length=8, normalization="q99")
    with pytest.raises(QvlaError, match="no num_images, for 7 actions"):
        read_layout(path)
    state_decoding(path, chunk_length=8, num_images=1, normalization="q99")
    checkpoint = load_checkpoint(path)
    assert (checkpoint.config.decoding.num_images, checkpoint.config.decoding.proprio_dim) == (1, 0)
    assert not hasattr(checkpoint.model, "proprio_projector")


def state_decoding(path: Path, **decoding: object) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "decoding": decoding}))


@pytest.mark.parametrize("kind", ["l1_chunk", "diffusion"])
def test_the_fix_that_is_printed_for_an_unknown_robot_works(tmp_path: Path, kind: str) -> None:
    tokenizer = random_tokenizer("openvla_oft")
    decoding = DecodingConfig(kind, action_dim=6, proprio_dim=5, num_images=1)
    config = random_config(
        "tiny", padded_vocabulary(tokenizer), tokenizer.token_to_id("<PAD>"), decoding
    )
    generator = torch.Generator().manual_seed(0)
    statistics = {"six_joints": plausible_statistics(decoding, generator)}
    belongings = Belongings(tokenizer, statistics, step=1, released=True)
    write_checkpoint(tmp_path, config, random_tensors(config, generator), belongings, torch.float16)
    with pytest.raises(QvlaError, match="6 actions and 5 proprioceptive numbers") as caught:
        load_checkpoint(tmp_path)
    example = re.search(r'"decoding": (\{.*\})', caught.value.fix)
    assert example
    state_decoding(tmp_path, **json.loads(example[1]))
    assert load_checkpoint(tmp_path).config == config


@pytest.mark.parametrize(
    ("family", "stated", "expected"),
    [
        ("openvla_oft", {"chunk_length": None, "num_images": 2}, {}),
        ("openvla_oft", {"chunk_length": 4}, {"chunk_length": 4}),
        ("openvla_oft", {"num_images": 1}, {"num_images": 1}),
        ("openvla_oft_diffusion", {"diffusion_steps": 10}, {"diffusion_steps": 10}),
        ("univla", {"chunk_length": 12}, {}),
        ("univla", {"action_dim": 7}, {}),
        ("univla", {"chunk_length": 14}, {"chunk_length": 14, "action_dim": 6}),
    ],
)
def test_what_config_json_leaves_out_comes_from_the_checkpoint(
    copy: Callable[[str], Path], family: str, stated: dict[str, object], expected: dict[str, object]
) -> None:
    path = copy(family)
    read = read_layout(path).config.decoding
    state_decoding(path, **stated)
    assert read_layout(path).config.decoding == replace(read, **expected)


def test_statistics_in_config_json_count_where_there_is_no_file(
    copy: Callable[[str], Path],
) -> None:
    path = copy("openvla")
    statistics = json.loads((path / "dataset_statistics.json").read_text())[
        "libero_object_no_noops"
    ]
    config = json.loads((path / "config.json").read_text())
    two_arms = {level: values * 2 for level, values in statistics["action"].items()}
    config["norm_stats"] = {"bridge_orig": statistics, "two_arms": {"action": two_arms}}
    (path / "config.json").write_text(json.dumps(config))
    assert load_checkpoint(path).unnorm_key == "libero_object_no_noops"
    (path / "dataset_statistics.json").unlink()
    with pytest.raises(QvlaError, match="one of bridge_orig, two_arms"):
        load_checkpoint(path)
    assert load_checkpoint(path, "bridge_orig").statistics == statistics
    assert load_checkpoint(path, "two_arms").config.decoding.action_dim == 14


def test_in_bfloat16_univlas_action_decoder_stays_in_float32(directories: dict[str, Path]) -> None:
    model = load_checkpoint(directories["univla"], dtype=torch.bfloat16).model
    assert model.projector.fc1.weight.dtype == torch.bfloat16
    assert model.action_decoder.proj[0].weight.dtype == torch.float32
    inputs = random_inputs(model.config)
    actions = model(replace(inputs, pixel_values=inputs.pixel_values.bfloat16()))
    assert (actions.shape, actions.dtype) == ((1, 12, 7), torch.float32)


@pytest.mark.parametrize("family", ["openvla", "openvla_oft_diffusion", "openvla_oft_film"])
def test_bfloat16_stays_near_float32(directories: dict[str, Path], family: str) -> None:
    wide = load_checkpoint(directories[family]).model
    narrow = load_checkpoint(directories[family], dtype=torch.bfloat16).model
    inputs = wide.prepare(random_inputs(wide.config))
    floats = {
        name: value
        for name, value in vars(inputs).items()
        if value is not None and value.is_floating_point()
    }
    smooth = narrow.smooth_actions(
        replace(inputs, **{name: value.bfloat16() for name, value in floats.items()})
    )
    assert (smooth.float() - wide.smooth_actions(inputs)).abs().mean() < 0.1


@pytest.mark.parametrize("kind", ["discrete", [], 3])
def test_an_unknown_kind_of_decoding_is_refused(copy: Callable[[str], Path], kind: object) -> None:
    path = copy("openvla")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "decoding": {"kind": kind}}))
    with pytest.raises(QvlaError, match=r"decoding\.kind"):
        load_checkpoint(path)


@pytest.mark.parametrize("steps", [0, 51])
def test_denoising_steps_out_of_range_are_refused(copy: Callable[[str], Path], steps: int) -> None:
    path = copy("openvla_oft_diffusion")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(
        json.dumps({**config, "decoding": {"diffusion_steps": steps}})
    )
    with pytest.raises(QvlaError, match="diffusion_steps"):
        load_checkpoint(path)


def test_weights_are_written_in_shards_that_are_read_back(tmp_path: Path) -> None:
    model = random_model("tiny", 1)
    belongings = Belongings(random_tokenizer("openvla_oft"), {}, step=7)
    tensors = random_tensors(model.config, torch.Generator().manual_seed(1))
    write_checkpoint(
        tmp_path / "sharded", model.config, tensors, belongings, torch.bfloat16, shard_bytes=100_000
    )
    files = sorted(file.name for file in (tmp_path / "sharded").glob("*.safetensors"))
    assert len(files) > 3
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    index = json.loads((tmp_path / "sharded" / "model.safetensors.index.json").read_text())
    stored = main_tensors(tmp_path / "sharded")
    sizes = [stored[name].read().nbytes for name in stored]
    assert index["metadata"]["total_size"] == sum(sizes)
    expected = {
        n: t.bfloat16()
        for n, t in model.state_dict().items()
        if not n.startswith(("action", "proprio"))
    }
    assert {name: tensor.dtype for name, tensor in stored.items()} == {
        name: torch.bfloat16 for name in expected
    }
    assert all(torch.equal(stored[name].read(), tensor) for name, tensor in expected.items())


def test_a_part_that_was_forgotten_is_named_by_what_the_others_say(
    copy: Callable[[str], Path],
) -> None:
    diffusion = copy("openvla_oft_diffusion")
    next(diffusion.glob("noisy_action_projector--*")).unlink()
    with pytest.raises(
        QvlaError, match=r"noisy_action_projector--\*_checkpoint\.pt: got no such file"
    ):
        read_layout(diffusion)


def test_a_missing_proprioception_is_asked_for_before_it_is_done_without(
    copy: Callable[[str], Path],
) -> None:
    chunked = copy("openvla_oft")
    next(chunked.glob("proprio_projector--*")).unlink()
    with pytest.raises(
        QvlaError, match=r"copy proprio_projector--\*_checkpoint\.pt here; if not, add"
    ):
        read_layout(chunked)
