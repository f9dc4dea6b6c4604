from __future__ import annotations

import json
import shutil
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.random_checkpoint import variants, write_random_checkpoint
from qvla_offline.export.bundle import export_bundle
from qvla_offline.fakequant import fake_quantize, target_shapes
from qvla_offline.gates import Gates, read_gates, uniform
from qvla_offline.gates.released import released_greedy
from qvla_offline.quantization.clip_search import ClipSearch
from qvla_offline.quantization.quantizer import Quantizer, quantize_layer
from qvla_offline.quantization.registry import QUANTIZERS
from qvla_offline.quantization.released import released_rtn
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.visible_files import visible_files
from qvla_ros.errors import QvlaError

SCHEME = QuantizationScheme(16)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_random_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="module")
def gates(checkpoint):
    generator = np.random.default_rng(0)
    shapes = target_shapes(checkpoint)
    return Gates(
        {n: generator.choice([0, 2, 4, 8, 16], r).astype(np.uint8) for n, (r, _) in shapes.items()},
        "random",
    )


def test_targets_come_from_the_configuration_alone(checkpoint):
    weights = load_file(checkpoint / "model.safetensors")
    shapes = target_shapes(checkpoint)
    assert {n: (s[0], s[1]) for n, s in shapes.items()} == {
        n: (len(weights[f"{n}.weight"]), weights[f"{n}.weight"][0].numel()) for n in shapes
    }
    assert not any(
        name.startswith(("projector", "action_head")) or "lm_head" in name for name in shapes
    )


def test_target_weights_are_what_export_stores_and_all_else_is_unchanged(
    tmp_path, checkpoint, gates
):
    out = fake_quantize(checkpoint, gates, tmp_path / "out", SCHEME, dtype=torch.float32)
    before = load_file(checkpoint / "model.safetensors")
    after = load_file(out / "model.safetensors")
    assert set(before) == set(after)
    for name, tensor in before.items():
        layer = name.removesuffix(".weight")
        if layer in gates.layers:
            stored = quantize_layer(tensor.flatten(1), gates.layers[layer], SCHEME).dequantize()
            assert torch.equal(after[name].flatten(1), stored)
        else:
            assert torch.equal(after[name], tensor)
    for file in visible_files(checkpoint):
        if file.suffix != ".safetensors":
            assert (out / file.name).read_bytes() == file.read_bytes()
    assert (out / "gates.json").is_file()


def test_the_dtype_and_layout_of_the_checkpoint_are_kept(tmp_path, checkpoint, gates):
    out = fake_quantize(checkpoint, gates, tmp_path / "out", SCHEME)
    before = load_file(checkpoint / "model.safetensors")
    after = load_file(out / "model.safetensors")
    assert {n: (t.dtype, t.shape) for n, t in before.items()} == {
        n: (t.dtype, t.shape) for n, t in after.items()
    }


def test_released_mode_rounds_each_row_in_the_dtype_of_the_checkpoint(tmp_path, checkpoint, gates):
    out = fake_quantize(checkpoint, gates, tmp_path / "out", SCHEME, mode="released")
    before = load_file(checkpoint / "model.safetensors")
    after = load_file(out / "model.safetensors")
    for name, row_bits in gates.layers.items():
        weight = before[f"{name}.weight"].flatten(1)
        rows = [
            released_rtn(row[None], int(b), floor=1e-8)[0]
            for row, b in zip(weight, row_bits, strict=True)
        ]
        assert torch.equal(after[f"{name}.weight"].flatten(1), torch.stack(rows))


class MovesBias(Quantizer):
    """A toy: the default's codes, and 0.5 for every bias."""

    corrects_bias = True

    def __init__(self, scheme: QuantizationScheme) -> None:
        self.scheme = scheme

    def quantize(self, name, weight, bits, statistics):
        layer = ClipSearch(self.scheme).quantize(name, weight, bits, statistics)
        return replace(layer, bias_correction=torch.full((len(weight),), 0.5))


@pytest.fixture
def toy(monkeypatch) -> QuantizationScheme:
    module = types.ModuleType("toy_quantizer")
    module.MovesBias = MovesBias
    monkeypatch.setitem(sys.modules, "toy_quantizer", module)
    monkeypatch.setitem(QUANTIZERS, "moves_bias", "toy_quantizer:MovesBias")
    return QuantizationScheme(16, quantizer="moves_bias")


def test_a_correction_of_the_bias_is_added_where_the_layout_has_a_bias(
    tmp_path, checkpoint, gates, toy, monkeypatch
):
    vision = {n: bits for n, bits in gates.layers.items() if n.startswith("vision_backbone")}
    names = {n: target_shapes(checkpoint)[n] for n in vision}
    monkeypatch.setattr("qvla_offline.fakequant.target_shapes", lambda _: names)
    out = fake_quantize(checkpoint, Gates(vision, "vision"), tmp_path / "out", toy)
    before = load_file(checkpoint / "model.safetensors")
    after = load_file(out / "model.safetensors")
    for name, tensor in before.items():
        module, _, kind = name.rpartition(".")
        if kind == "bias" and module in vision:
            assert torch.equal(after[name], (tensor.float() + 0.5).to(tensor.dtype))
        elif module not in vision:
            assert torch.equal(after[name], tensor)


def test_a_correction_of_a_bias_that_the_layout_lacks_is_refused(tmp_path, checkpoint, gates, toy):
    with pytest.raises(QvlaError, match="^bias correction of language_model.*without a bias"):
        fake_quantize(checkpoint, gates, tmp_path / "out", toy)
    assert not list(tmp_path.iterdir())


def test_sixteen_bits_everywhere_changes_no_float16_weight(tmp_path, checkpoint):
    gates = uniform({name: rows for name, (rows, _) in target_shapes(checkpoint).items()}, 16)
    out = fake_quantize(checkpoint, gates, tmp_path / "out")
    before = load_file(checkpoint / "model.safetensors")
    after = load_file(out / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_wrong_gates_and_a_wrong_mode_leave_nothing_behind(tmp_path, checkpoint, gates):
    name = next(iter(gates.layers))
    short = Gates(gates.layers | {name: gates.layers[name][:-1]}, "short")
    with pytest.raises(QvlaError, match=name):
        fake_quantize(checkpoint, short, tmp_path / "out", SCHEME)
    with pytest.raises(QvlaError, match="mode"):
        fake_quantize(checkpoint, gates, tmp_path / "out", SCHEME, mode="other")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "out", ["base", "tuned", "base/fq", "tuned/deep/fq", "tuned/lora_adapter", "."]
)
def test_an_output_directory_that_holds_or_lies_in_what_is_read_is_refused(
    tmp_path, checkpoint, gates, out
):
    base = shutil.copytree(checkpoint, tmp_path / "base")
    tuned = shutil.copytree(checkpoint, tmp_path / "tuned")
    (tuned / "model.safetensors").unlink()
    write_adapter(tuned / "lora_adapter", checkpoint, base)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(QvlaError, match="out_dir: got .*Fix: choose an --out_dir outside"):
        fake_quantize(tuned, gates, tmp_path / out, SCHEME)
    assert sorted(tmp_path.rglob("*")) == before


def write_adapter(directory, checkpoint, base) -> None:
    """The smallest adapter of peft's that there is: one layer, which it leaves as it was."""
    layer = "language_model.model.layers.0.mlp.up_proj"
    rows, columns = load_file(checkpoint / "model.safetensors")[f"{layer}.weight"].shape
    factors = {"lora_A": torch.ones(1, columns).half(), "lora_B": torch.zeros(rows, 1).half()}
    directory.mkdir()
    named = {f"base_model.model.{layer}.{name}.weight": factor for name, factor in factors.items()}
    save_file(named, directory / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "base_model_name_or_path": str(base)}
    (directory / "adapter_config.json").write_text(json.dumps(config))


def test_only_an_earlier_fake_quantized_checkpoint_is_replaced(tmp_path, checkpoint, gates):
    other = shutil.copytree(checkpoint, tmp_path / "other")
    shutil.copyfile(
        fake_quantize(checkpoint, gates, tmp_path / "out", SCHEME) / "gates.json",
        other / "gates.json",
    )
    before = contents(other)
    with pytest.raises(QvlaError, match="output directory .*other.*name a new directory"):
        fake_quantize(checkpoint, gates, other, SCHEME)
    assert contents(other) == before
    first = contents(tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("of the last run")
    fake_quantize(checkpoint, gates, tmp_path / "out", SCHEME)
    assert contents(tmp_path / "out") == first


def random_gates(checkpoint) -> Gates:
    generator = np.random.default_rng(1)
    rows = {name: rows for name, (rows, _) in target_shapes(checkpoint).items()}
    return Gates(
        {n: generator.choice([0, 2, 4, 8, 16], r).astype(np.uint8) for n, r in rows.items()},
        "random",
    )


def check_policy(source, out, gates) -> None:
    """`out` loads as the policy of `source` with its targets quantized and restored."""
    before = load_checkpoint(source, lazily=True).tensors
    after = load_checkpoint(out, lazily=True).tensors
    assert set(before) == set(after)
    for name, stored in before.stored.items():
        tensor = before[name]
        layer = name.removesuffix(".weight")
        if name.endswith(".weight") and layer in gates.layers:
            restored = quantize_layer(tensor.flatten(1), gates.layers[layer], SCHEME).dequantize()
            # FiLM's are merged in float32
            stored_as = torch.float16 if "vision_backbone" in name else tensor.dtype
            tensor = restored.reshape(tensor.shape).to(stored_as).to(tensor.dtype)
        assert after.stored[name].dtype == stored.dtype
        assert torch.equal(after[name], tensor), name


def contents(directory) -> dict[str, object]:
    """What the original code reads: {file: {tensor: (shape, dtype)} of weights, else bytes}."""
    read = {".safetensors": load_file, ".pt": lambda file: torch.load(file, weights_only=True)}
    return {
        file.name: [(name, t.shape, t.dtype) for name, t in sorted(read[file.suffix](file).items())]
        if file.suffix in read
        else file.read_bytes()
        for file in visible_files(directory)
    }


@pytest.mark.parametrize("family", variants())
def test_every_family_keeps_its_files_and_is_read_back_with_its_targets_restored(tmp_path, family):
    source = write_random_checkpoint(tmp_path / "source", family)
    gates = random_gates(source)
    out = fake_quantize(source, gates, tmp_path / "out", SCHEME)
    check_policy(source, out, gates)
    written = contents(out)
    assert written.pop("gates.json")
    assert written == contents(source)


def test_what_a_clone_keeps_for_itself_is_not_copied(tmp_path, checkpoint, gates):
    source = shutil.copytree(checkpoint, tmp_path / "source")
    hidden = source / ".git" / "lfs" / "objects"
    hidden.mkdir(parents=True)
    (hidden / "weights").write_text("of another model")
    out = fake_quantize(source, gates, tmp_path / "out", SCHEME)
    assert not (out / ".git").exists()
    check_policy(source, out, gates)


def test_the_file_of_film_keeps_its_names_and_types_and_its_factors_do_nothing(tmp_path):
    source = write_random_checkpoint(tmp_path / "source", "openvla_oft_film")
    [file] = source.glob("vision_backbone--*.pt")
    state = torch.load(file, weights_only=True)
    factor = next(key for key in state if ".lora_B." in key)
    state[factor] += 0.5  # an adapter that does something, to be merged
    torch.save(state, file)
    gates = random_gates(source)
    out = fake_quantize(source, gates, tmp_path / "out", SCHEME)
    check_policy(source, out, gates)
    written = torch.load(out / file.name, weights_only=True)
    assert [(n, t.shape, t.dtype) for n, t in written.items()] == [
        (n, t.shape, t.dtype) for n, t in state.items()
    ]
    assert not any(tensor.any() for key, tensor in written.items() if ".lora_B." in key)


def test_float32_is_exact_in_the_file_of_film_too(tmp_path):
    source = write_random_checkpoint(tmp_path / "source", "openvla_oft_film")
    gates = random_gates(source)
    out = fake_quantize(source, gates, tmp_path / "out", SCHEME, dtype=torch.float32)
    before = load_checkpoint(source, lazily=True).tensors
    after = load_checkpoint(out, lazily=True).tensors
    for layer, row_bits in gates.layers.items():
        stored = quantize_layer(before[f"{layer}.weight"].flatten(1), row_bits, SCHEME).dequantize()
        assert torch.equal(after[f"{layer}.weight"].flatten(1), stored), layer
    [file] = out.glob("vision_backbone--*.pt")
    kinds = {
        k.endswith(".base_layer.weight"): t.dtype
        for k, t in torch.load(file, weights_only=True).items()
    }
    assert kinds == {True: torch.float32, False: torch.float16}


def cut_in_two(directory) -> None:
    """Splits model.safetensors into two shards; the second holds float32 and float16."""
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    halves = {f"model-{i + 1:05d}-of-00002.safetensors": list(tensors)[i::2] for i in range(2)}
    wide = {name for name in halves["model-00002-of-00002.safetensors"] if "norm" in name}
    for shard, names in halves.items():
        save_file(
            {n: tensors[n].float() if n in wide else tensors[n] for n in names},
            directory / shard,
            {"format": "pt"},
        )
    weight_map = {name: shard for shard, names in halves.items() for name in names}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_shards_keep_their_files_names_and_metadata(tmp_path, checkpoint, gates, dtype):
    source = shutil.copytree(checkpoint, tmp_path / "source")
    cut_in_two(source)
    out = fake_quantize(source, gates, tmp_path / "out", SCHEME, dtype=dtype)
    assert {file.name for file in out.iterdir()} == {file.name for file in source.iterdir()} | {
        "gates.json"
    }
    for shard in source.glob("*.safetensors"):
        with safe_open(shard, "pt") as before, safe_open(out / shard.name, "pt") as after:
            assert set(before.keys()) == set(after.keys())
            assert before.metadata() == after.metadata()
            for name in before.keys():  # noqa: SIM118 - not a mapping
                gated = name.endswith(".weight") and name.removesuffix(".weight") in gates.layers
                kind = before.get_tensor(name).dtype
                assert after.get_tensor(name).dtype == (dtype if dtype and gated else kind)
    if dtype is None:
        check_policy(source, out, gates)


def test_an_adapter_is_merged_into_what_is_written(tmp_path, checkpoint, gates):
    source = shutil.copytree(checkpoint, tmp_path / "source")
    (source / "model.safetensors").unlink()
    layer = "language_model.model.layers.0.mlp.up_proj"
    shape = load_file(checkpoint / "model.safetensors")[f"{layer}.weight"].shape
    factors = {
        "lora_A": torch.ones(2, shape[1]).half(),
        "lora_B": torch.ones(shape[0], 2).half() / 4,
    }
    named = {f"base_model.model.{layer}.{name}.weight": factor for name, factor in factors.items()}
    # peft stores its own weight too, here in another type than the base's
    head = "language_model.lm_head"
    wrapped = load_file(checkpoint / "model.safetensors")[f"{head}.weight"].float() + 0.5
    named[f"base_model.model.{head}.base_layer.weight"] = wrapped
    named[f"base_model.model.{head}.lora_A.weight"] = torch.ones(2, wrapped.shape[1]).half()
    named[f"base_model.model.{head}.lora_B.weight"] = torch.ones(wrapped.shape[0], 2).half() / 4
    save_file(named, source / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 1,
        "base_model_name_or_path": str(checkpoint),
    }
    (source / "adapter_config.json").write_text(json.dumps(config))
    out = fake_quantize(source, gates, tmp_path / "out", SCHEME)
    assert not list(out.glob("adapter*"))
    check_policy(source, out, gates)
    written = load_file(out / "model.safetensors")[f"{head}.weight"]
    # alpha / r, times 2 * 1 / 4
    torch.testing.assert_close(written, wrapped.half() + 0.25, rtol=1e-3, atol=1e-3)


def printed_change(text: str) -> float:
    """The largest change of one number that the line about rounding states."""
    return float(text.partition("by up to ")[2].split()[0])


def test_rounding_to_the_types_of_the_checkpoint_is_printed_with_its_size(
    tmp_path, checkpoint, gates, capsys
):
    exact = load_file(
        fake_quantize(checkpoint, gates, tmp_path / "exact", SCHEME, dtype=torch.float32)
        / "model.safetensors"
    )
    assert "rounded" not in capsys.readouterr().out
    kept = load_file(
        fake_quantize(checkpoint, gates, tmp_path / "kept", SCHEME) / "model.safetensors"
    )
    largest = max(float((exact[name].float() - kept[name].float()).abs().max()) for name in exact)
    assert printed_change(capsys.readouterr().out) == pytest.approx(largest, rel=0.05)


def test_gates_of_the_released_method_are_the_same_in_bundle_and_fake_quantized_checkpoint(
    tmp_path, checkpoint
):
    generator = np.random.default_rng(1)
    proxies = {
        name: {bits: generator.random(rows) for bits in (0, 2, 4, 8)}
        for name, (rows, _) in target_shapes(checkpoint).items()
    }
    released = Gates(released_greedy(proxies, (0, 2, 4, 8, 16), 3.0), "hessian/released")
    assert any(np.bincount(bits)[4:].any() for bits in released.layers.values())
    bundle = export_bundle(checkpoint, released, tmp_path / "bundle")
    fake = fake_quantize(checkpoint, released, tmp_path / "fake")
    stored = read_gates(bundle / "gates.json")
    restored = read_gates(fake / "gates.json")
    for name, bits in released.layers.items():
        assert np.array_equal(stored.layers[name], bits)
        assert np.array_equal(restored.layers[name], bits)
