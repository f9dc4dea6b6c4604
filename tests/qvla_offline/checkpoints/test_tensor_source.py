"""Tensors read lazily, from shards, components and adapters.

What is broken is named before anything is computed.
"""

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
from qvla_offline.checkpoints.stored import INDEX, SINGLE_FILE, StoredTensor, component_tensors
from qvla_offline.checkpoints.tensor_source import TensorSource, open_tensors
from qvla_ros.errors import QvlaError

HEAD = "action_head--1000_checkpoint.pt"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("checkpoint") / "whole", seed=2)


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def cut_into_shards(directory: Path, count: int) -> dict[str, str]:
    """Replaces the one weights file by shards with an index; every block lies in several."""
    tensors = load_file(directory / SINGLE_FILE)
    (directory / SINGLE_FILE).unlink()
    weight_map = {
        name: f"model-{1 + i % count:05d}-of-{count:05d}.safetensors"
        for i, name in enumerate(tensors)
    }
    for shard in set(weight_map.values()):
        part = {name: tensors[name] for name in tensors if weight_map[name] == shard}
        save_file(part, directory / shard, {"format": "pt"})
    (directory / INDEX).write_text(
        json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map})
    )
    return weight_map


def edit_shard(file: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def test_a_lazily_opened_checkpoint_has_every_tensor_as_stored_and_no_weight_in_its_model(
    whole: Path,
) -> None:
    lazy = load_checkpoint(whole, lazily=True)
    full = load_checkpoint(whole)
    assert all(parameter.is_meta for parameter in lazy.model.parameters())
    assert set(lazy.tensors) == set(full.model.state_dict())
    for name, tensor in full.model.state_dict().items():
        assert lazy.tensors[name].dtype == lazy.tensors.stored[name].dtype == torch.float16
        assert torch.equal(lazy.tensors[name].float(), tensor)


def test_shards_hold_what_the_single_file_held(whole: Path, copy: Path) -> None:
    cut_into_shards(copy, 5)
    before = load_checkpoint(whole)
    after = load_checkpoint(copy)
    for name, tensor in before.model.state_dict().items():
        assert torch.equal(after.model.state_dict()[name], tensor)


def test_no_tensor_is_read_before_it_is_asked_for() -> None:
    read: list[str] = []

    def stored(name: str) -> StoredTensor:
        return StoredTensor(
            Path("x"), (2,), torch.float32, lambda: read.append(name) or torch.zeros(2)
        )

    source = TensorSource({name: stored(name) for name in "abc"})
    assert "a" in source
    assert list(source) == ["a", "b", "c"]
    assert read == []
    source["b"]
    assert read == ["b"]


def truncate(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


SHARD = "model-00002-of-00003.safetensors"


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda path, _: (path / SHARD).unlink(), SHARD),
        (lambda path, _: truncate(path / SHARD), SHARD),
        (lambda path, _: (path / SHARD).write_bytes(b""), SHARD),
        (
            lambda path, _: (path / INDEX).write_text(
                '{"weight_map": {"a": "model-9.safetensors"}}'
            ),
            "model-9.safetensors",
        ),
        (lambda path, _: (path / INDEX).write_text("{"), INDEX),
        (lambda path, names: edit_shard(path / SHARD, lambda t: t.pop(names[0])), "FIRST"),
        (
            lambda path, names: edit_shard(
                path / SHARD, lambda t: t.update({names[0]: torch.zeros(3)})
            ),
            "FIRST",
        ),
        (
            lambda path, _: edit_shard(path / SHARD, lambda t: t.update(surplus=torch.zeros(3))),
            "surplus",
        ),
        (
            lambda path, _: shutil.copy(path / SHARD, path / "model-00001-of-00003.safetensors"),
            "FIRST",
        ),
        (lambda path, _: truncate(path / HEAD), HEAD),
        (lambda path, _: torch.save({"module.model.fc1.weight": 3}, path / HEAD), HEAD),
        (lambda path, _: torch.save([torch.zeros(2)], path / HEAD), HEAD),
        (
            lambda path, _: torch.save({"module.model.fc1.weight": torch.zeros(2)}, path / HEAD),
            "action_head.model",
        ),
    ],
)
def test_a_broken_shard_or_component_is_refused_by_name(
    copy: Path, damage: Callable[[Path, list[str]], object], named: str
) -> None:
    names = sorted(name for name, shard in cut_into_shards(copy, 3).items() if shard == SHARD)
    damage(copy, names)
    with pytest.raises(QvlaError) as caught:
        load_checkpoint(copy, lazily=True)
    assert (names[0] if named == "FIRST" else named) in caught.value.key


def test_component_prefix_is_dropped_once_and_only_at_the_front(tmp_path: Path) -> None:
    state = {
        "module.fc.weight": torch.ones(2),
        "plain.weight": torch.zeros(1),
        "module.module.x": torch.ones(1),
    }
    torch.save(state, tmp_path / "head.pt")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for file in ("head.pt", "old.pt"):
        found = TensorSource(component_tensors(tmp_path / file, "head"))
        assert set(found) == {"head.fc.weight", "head.plain.weight", "head.module.x"}
        assert torch.equal(found["head.fc.weight"], torch.ones(2))


LAYER = "language_model.model.layers.0.mlp.up_proj"
CONVOLUTION = "vision_backbone.featurizer.patch_embed.proj"
RANK = 4


def write_adapter(
    directory: Path, base: Path, dtype: torch.dtype = torch.float16, **config: object
) -> Path:
    """A LoRA adapter of one linear layer and one convolution of the checkpoint at `base`."""
    weights = load_file(base / SINGLE_FILE)
    generator = torch.Generator().manual_seed(0)
    factors = {}
    for name in (LAYER, CONVOLUTION):
        rows, *inputs = weights[f"{name}.weight"].shape
        shapes = {"A": (RANK, *inputs), "B": (rows, RANK, *[1] * (len(inputs) - 1))}
        for part, shape in shapes.items():
            key = f"base_model.model.{name}.lora_{part}.weight"
            factors[key] = torch.randn(shape, generator=generator).to(dtype) / 8
    directory.mkdir(parents=True, exist_ok=True)
    save_file(factors, directory / "adapter_model.safetensors")
    plain = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": 2,
        "base_model_name_or_path": str(base),
        "bias": "none",
    }
    (directory / "adapter_config.json").write_text(
        json.dumps({**plain, "target_modules": ["x"], **config})
    )
    return directory


@pytest.mark.parametrize(
    ("config", "scaling"), [({}, 0.5), ({"use_rslora": True}, 1.0), ({"lora_alpha": 8}, 2.0)]
)
def test_an_adapter_is_merged_into_the_weights_beside_it(
    whole: Path, copy: Path, config: dict[str, object], scaling: float
) -> None:
    write_adapter(copy, whole, **config)
    before = load_checkpoint(whole, lazily=True).tensors
    after = load_checkpoint(copy, lazily=True).tensors
    factors = load_file(copy / "adapter_model.safetensors")
    for name in (LAYER, CONVOLUTION):
        first, second = (
            factors[f"base_model.model.{name}.lora_{part}.weight"].float() for part in "AB"
        )
        change = scaling * torch.einsum("or,r...->o...", second.flatten(1), first)
        expected = (before[f"{name}.weight"].float() + change).half()
        assert not torch.equal(after[f"{name}.weight"], before[f"{name}.weight"])
        torch.testing.assert_close(after[f"{name}.weight"], expected, rtol=2e-3, atol=1e-3)
    unchanged = set(before) - {f"{LAYER}.weight", f"{CONVOLUTION}.weight"}
    assert all(torch.equal(before[name], after[name]) for name in unchanged)


@pytest.mark.parametrize("rank", [1, 16])
def test_an_adapter_whose_factors_have_another_rank_is_refused(
    whole: Path, copy: Path, rank: int
) -> None:
    """Its scaling, lora_alpha / r, would be wrong; peft refuses the shapes."""
    write_adapter(copy, whole, r=rank)
    with pytest.raises(QvlaError, match=rf"adapter_config\.json: r: got {rank}, but .* 4 rows"):
        load_checkpoint(copy, lazily=True)


def test_a_bfloat16_adapter_is_rounded_as_peft_rounds_it() -> None:
    from qvla_offline.checkpoints.lora import merged_weight

    generator = torch.Generator().manual_seed(0)
    weight, first, second = (
        torch.randn(s, generator=generator).bfloat16() for s in ((32, 48), (4, 48), (32, 4))
    )
    product = (second.float() @ first.float()).bfloat16()
    expected = (weight.float() + (product.float() * 0.5).bfloat16().float()).bfloat16()
    assert torch.equal(merged_weight(weight, first, second, 0.5), expected)


def test_weights_beside_lora_adapter_have_it_merged_and_without_them_its_base_is_read(
    whole: Path, copy: Path
) -> None:
    write_adapter(copy / "lora_adapter", whole)
    layer = f"{LAYER}.weight"
    base = load_checkpoint(whole, lazily=True).tensors[layer]
    assert torch.equal(load_checkpoint(copy, lazily=True).tensors[layer], base)
    (copy / SINGLE_FILE).unlink()
    assert not torch.equal(load_checkpoint(copy, lazily=True).tensors[layer], base)
    (copy / "config.json").unlink()  # training writes none beside an adapter that it has not merged
    assert not torch.equal(load_checkpoint(copy, lazily=True).tensors[layer], base)


def test_a_layers_own_weight_in_an_adapter_replaces_the_base(whole: Path, copy: Path) -> None:
    write_adapter(copy, whole)
    own = torch.full_like(
        load_checkpoint(whole, lazily=True).tensors["language_model.lm_head.weight"], 0.25
    )
    key = "base_model.model.language_model.lm_head.base_layer.weight"
    edit_shard(copy / "adapter_model.safetensors", lambda tensors: tensors.update({key: own}))
    assert torch.equal(
        load_checkpoint(copy, lazily=True).tensors["language_model.lm_head.weight"], own
    )


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"use_dora": True}, "use_dora"),
        ({"peft_type": "IA3"}, "peft_type"),
        ({"bias": "all"}, "bias"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
        ({"r": 0}, "adapter_config.json: r"),
        ({"lora_alpha": "much"}, "lora_alpha"),
    ],
)
def test_adapters_other_than_plain_lora_are_refused_by_key(
    whole: Path, copy: Path, config: dict[str, object], named: str
) -> None:
    write_adapter(copy, whole, **config)
    with pytest.raises(QvlaError) as caught:
        load_checkpoint(copy)
    assert named in caught.value.key


def test_factors_that_fit_no_weight_and_bases_elsewhere_are_refused(
    whole: Path, copy: Path
) -> None:
    adapter = write_adapter(copy, whole) / "adapter_model.safetensors"
    intact = adapter.read_bytes()
    key = f"base_model.model.{LAYER}.lora_B.weight"
    for change in (
        lambda tensors: tensors.pop(key),
        lambda tensors: tensors.update({key: torch.zeros(3, RANK)}),
        lambda tensors: tensors.update({key.replace("up_proj", "side_proj"): torch.zeros(3, RANK)}),
    ):
        edit_shard(adapter, change)
        with pytest.raises(QvlaError, match="mlp"):
            open_tensors(copy, {})
        adapter.write_bytes(intact)
    (copy / SINGLE_FILE).unlink()
    write_adapter(copy, whole, base_model_name_or_path="openvla/openvla-7b")
    with pytest.raises(QvlaError, match="base_model_name_or_path"):
        open_tensors(copy, {})
