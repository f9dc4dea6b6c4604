"""The whole graph against the torch policy that carries the same rounded weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from qvla_offline.checkpoints.config import PolicyConfig
from qvla_offline.checkpoints.model import PolicyInputs, VisionLanguageModel
from qvla_offline.checkpoints.openvla_oft import OpenVLAOFT
from qvla_offline.checkpoints.random_checkpoint import randomize
from qvla_offline.checkpoints.targets import quantization_targets
from qvla_offline.export.graph import GraphBuilder
from qvla_offline.export.linear import opset_for
from qvla_offline.export.options import ExportOptions
from qvla_offline.export.policy import emit_policy
from qvla_offline.export.weights import CheckpointWeights
from qvla_offline.quantization.quantizer import quantize_layer
from qvla_offline.quantization.scheme import QuantizationScheme
from tests.support.random_model import random_model

TOLERANCE = 1e-4  # float32 sums in another order; actions are of order 1


def random_gates(model: OpenVLAOFT, seed: int) -> dict[str, np.ndarray]:
    """Every bit-width in every layer, most often 4."""
    rng = np.random.default_rng(seed)
    shares = [0.08, 0.2, 0.45, 0.2, 0.07]
    targets = quantization_targets(model)
    return {
        name: rng.choice([0, 2, 4, 8, 16], len(module.weight), p=shares)
        for name, module in targets.items()
    }


@dataclass(frozen=True)
class Written:
    """bits: {gated layer that runs: bits [R] as stored}."""

    bits: dict[str, np.ndarray]
    scheme: QuantizationScheme


def write_policy(
    path: Path,
    model: VisionLanguageModel,
    gates: Mapping[str, np.ndarray],
    scheme: QuantizationScheme,
    compute: str = "float32",
    guessed: bool = False,
) -> Written:
    """The policy's graph at `path`; returns what it stores."""
    weights = CheckpointWeights(model.state_dict(), gates, scheme, tile=8)
    with GraphBuilder(
        path.with_suffix(".onnx.data"), compute, opset_for(scheme.two_bit_storage)
    ) as graph:
        emit_policy(graph, weights, model.config, ExportOptions(guessed=guessed))
        stored = graph.finish()
        onnx.save(stored.model, path)
    onnx.checker.check_model(path, full_check=True)
    bits = {name: layer.bits for name, layer in stored.layers.items() if name in gates}
    return Written(bits, scheme)


@torch.no_grad()
def rounded_model(model: VisionLanguageModel, weights: Written) -> VisionLanguageModel:
    """A copy: gated layers went through the quantizer, other matrices through float16."""
    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    for name, module in copy.named_modules():
        weight = getattr(module, "weight", None)
        if weight is None or weight.ndim < 2:
            continue
        if name in weights.bits:
            layer = quantize_layer(weight.flatten(1), weights.bits[name], weights.scheme)
            weight.copy_(layer.dequantize().view_as(weight))
        else:
            weight.copy_(weight.half().float())
    return copy.eval().requires_grad_(False)


def random_inputs(config: PolicyConfig, seed: int, prompt_tokens: int) -> dict[str, np.ndarray]:
    """Inputs of the policy graph."""
    rng = np.random.default_rng(seed)
    size = config.vision[0].image_size
    channels = 3 * len(config.vision) * config.decoding.num_images
    inputs = {
        "pixel_values": rng.standard_normal((1, channels, size, size), dtype=np.float32),
        "input_ids": rng.integers(3, config.text.vocab_size, (1, prompt_tokens)),
    }
    if config.decoding.proprio_dim:
        inputs["proprio"] = rng.uniform(-1, 1, (1, config.decoding.proprio_dim)).astype(np.float32)
    return inputs


def policy_inputs(inputs: Mapping[str, np.ndarray]) -> PolicyInputs:
    return PolicyInputs(**{name: torch.from_numpy(array) for name, array in inputs.items()})


def torch_actions(model: VisionLanguageModel, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """[1, K, A], float32."""
    return model(policy_inputs(inputs)).numpy()


def check_parity(
    path: Path, run_graph, model: OpenVLAOFT, gates, scheme=None, prompts=(19,)
) -> None:
    weights = write_policy(path, model, gates, scheme or QuantizationScheme())
    rounded = rounded_model(model, weights)
    for length in prompts:
        inputs = random_inputs(model.config, seed=length, prompt_tokens=length)
        expected = torch_actions(rounded, inputs)
        actions = run_graph(path, inputs)["actions"]
        assert (actions.shape, actions.dtype) == (expected.shape, np.float32)
        assert np.abs(expected).max() > 0.05  # else agreement would mean nothing
        np.testing.assert_allclose(actions, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_random_gates_agree_with_the_rounded_policy(
    tmp_path: Path, run_graph, model: OpenVLAOFT, seed: int
) -> None:
    check_parity(
        tmp_path / "policy.onnx", run_graph, model, random_gates(model, seed), prompts=(2, 19, 60)
    )


def test_packed_two_bit_storage_agrees(tmp_path: Path, run_graph, model: OpenVLAOFT) -> None:
    scheme = QuantizationScheme(group_size=32, two_bit_storage="int2")
    check_parity(tmp_path / "policy.onnx", run_graph, model, random_gates(model, 7), scheme)


def test_whole_layers_of_0_and_of_16_bits_agree(
    tmp_path: Path, run_graph, model: OpenVLAOFT
) -> None:
    gates = {
        name: np.full(len(module.weight), 16)
        for name, module in quantization_targets(model).items()
    }
    for name in gates:
        if ".0.mlp." in name or name.endswith(("0.attn.qkv", "1.self_attn.v_proj")):
            gates[name] = np.zeros_like(gates[name])
    check_parity(tmp_path / "policy.onnx", run_graph, model, gates)


@torch.no_grad()
def changed_model(config: PolicyConfig) -> OpenVLAOFT:
    model = OpenVLAOFT(config)
    randomize(model, torch.Generator().manual_seed(3))
    return model.eval().requires_grad_(False)


def test_shared_key_heads_agree(tmp_path: Path, run_graph, model: OpenVLAOFT) -> None:
    grouped = changed_model(
        replace(model.config, text=replace(model.config.text, num_key_value_heads=2))
    )
    check_parity(tmp_path / "policy.onnx", run_graph, grouped, random_gates(grouped, 1))


def test_a_single_backbone_and_a_single_image_agree(
    tmp_path: Path, run_graph, model: OpenVLAOFT
) -> None:
    decoding = replace(model.config.decoding, num_images=1)
    config = replace(model.config, vision=model.config.vision[1:], decoding=decoding)
    single = changed_model(config)
    check_parity(tmp_path / "policy.onnx", run_graph, single, random_gates(single, 1))


def test_class_tokens_with_and_without_a_place_agree(
    tmp_path: Path, run_graph, model: OpenVLAOFT
) -> None:
    registers = model.config.vision[0]
    plain = model.config.vision[1]
    plain = replace(plain, class_token=True, class_position=True, attention_pool=False)
    config = replace(model.config, vision=(registers, plain))
    placed = changed_model(config)
    assert placed.vision_backbone.fused_featurizer.pos_embed.shape[1] == plain.num_patches + 1
    check_parity(tmp_path / "policy.onnx", run_graph, placed, random_gates(placed, 0))


def test_pixels_that_fill_no_patch_are_left_out(
    tmp_path: Path, run_graph, model: OpenVLAOFT
) -> None:
    vision = tuple(replace(vit, image_size=vit.image_size + 2) for vit in model.config.vision)
    wider = changed_model(replace(model.config, vision=vision))
    assert [vit.num_patches for vit in vision] == [vit.num_patches for vit in model.config.vision]
    check_parity(tmp_path / "policy.onnx", run_graph, wider, random_gates(wider, 0))


def test_float16_compute_stays_near_the_rounded_policy(
    tmp_path: Path, run_graph, model: OpenVLAOFT
) -> None:
    weights = write_policy(
        tmp_path / "policy.onnx", model, random_gates(model, 0), QuantizationScheme(), "float16"
    )
    inputs = random_inputs(model.config, 0, 19)
    actions = run_graph(tmp_path / "policy.onnx", inputs)["actions"]
    np.testing.assert_allclose(
        actions, torch_actions(rounded_model(model, weights), inputs), atol=1e-2
    )


def test_what_a_policy_never_executes_is_not_in_the_graph(
    tmp_path: Path, model: OpenVLAOFT
) -> None:
    weights = write_policy(
        tmp_path / "policy.onnx", model, random_gates(model, 0), QuantizationScheme()
    )
    left_out = set(quantization_targets(model)) - set(weights.bits)
    assert {name.split(".")[2] for name in left_out} == {"blocks", "attn_pool"}
    # the last block of two ViTs, four layers each, and five of the pooling head
    assert len(left_out) == 13


def test_openvlas_tokens_agree_and_every_weight_is_stored_once(tmp_path: Path, run_graph) -> None:
    model = random_model("tiny", 0, "openvla")
    weights = write_policy(
        tmp_path / "policy.onnx", model, random_gates(model, 0), QuantizationScheme(group_size=32)
    )
    rounded = rounded_model(model, weights)
    seen = set()
    for length in (2, 19, 60):
        inputs = random_inputs(model.config, length, length)
        expected = rounded.generate(policy_inputs(inputs)).numpy()
        tokens = run_graph(tmp_path / "policy.onnx", inputs)["action_tokens"]
        np.testing.assert_array_equal(tokens, expected)
        seen |= set(expected[0].tolist())
    assert len(seen) > 10
    graph = onnx.load(tmp_path / "policy.onnx", load_external_data=False).graph
    stored = [tensor.name for tensor in graph.initializer]
    assert len(stored) == len(set(stored))
    scales = sum(name.endswith(".scale") for name in stored)
    assert scales == sum(node.op_type == "DequantizeLinear" for node in graph.node)
    assert sum("language_model.lm_head.weight" in name for name in stored) == 1


def test_the_graph_tells_what_follows_each_token_of_a_guess(tmp_path: Path, run_graph) -> None:
    model = random_model("tiny", 0, "openvla")
    path = tmp_path / "policy.onnx"
    weights = write_policy(path, model, random_gates(model, 0), QuantizationScheme(), guessed=True)
    rounded = rounded_model(model, weights)
    inputs = random_inputs(model.config, 5, 19)
    truth = rounded.generate(policy_inputs(inputs)).numpy()
    answer = run_graph(path, {**inputs, "guess": truth[:, :-1]})["action_tokens"]
    np.testing.assert_array_equal(answer, truth)
    wrong = truth[:, :-1].copy()
    wrong[0, 3] += 1
    answer = run_graph(path, {**inputs, "guess": wrong})["action_tokens"]
    # what comes after the wrong one is another matter
    np.testing.assert_array_equal(answer[:, :4], truth[:, :4])
    weighed = [
        node.input[1]
        for node in onnx.load(path, load_external_data=False).graph.node
        if node.op_type == "MatMul"
    ]
    assert len(weighed) == len(set(weighed))


def test_the_noise_of_a_diffusion_policy_agrees(tmp_path: Path, run_graph) -> None:
    model = random_model("tiny", 0, "openvla_oft_diffusion")
    weights = write_policy(
        tmp_path / "policy.onnx", model, random_gates(model, 0), QuantizationScheme()
    )
    rounded = rounded_model(model, weights)
    inputs = random_inputs(model.config, 1, 19)
    noisy = np.random.default_rng(0).standard_normal((1, 8, 7), dtype=np.float32)
    for timestep in (49, 7, 0):
        context = rounded.context(policy_inputs(inputs))
        expected = rounded.predict_noise(
            policy_inputs(inputs), context, torch.from_numpy(noisy), timestep
        ).numpy()
        asked = {**inputs, "noisy_actions": noisy, "timestep": np.array([timestep], np.float32)}
        np.testing.assert_allclose(
            run_graph(tmp_path / "policy.onnx", asked)["noise"], expected, atol=TOLERANCE
        )
    assert np.abs(expected).max() > 0.05


def test_film_agrees_and_the_prompt_reaches_the_images(tmp_path: Path, run_graph) -> None:
    model = random_model("tiny", 0, "openvla_oft_film")
    gates = random_gates(model, 0)
    assert "vision_backbone.featurizer.blocks.0.scale" in gates
    check_parity(tmp_path / "policy.onnx", run_graph, model, gates, prompts=(2, 19))


def test_univlas_drawn_tokens_and_actions_agree(tmp_path: Path, run_graph) -> None:
    model = random_model("tiny", 0, "univla")
    weights = write_policy(
        tmp_path / "policy.onnx", model, random_gates(model, 0), QuantizationScheme(group_size=32)
    )
    rounded = rounded_model(model, weights)
    rng = np.random.default_rng(0)
    seen = set()
    for length in (3, 19):
        inputs = random_inputs(model.config, length, length)
        for noise in (np.zeros((1, 4, 50)), rng.gumbel(size=(1, 4, 50))):
            noise = noise.astype(np.float32)
            outputs = run_graph(tmp_path / "policy.onnx", {**inputs, "sampling_noise": noise})
            tokens = rounded.generate(policy_inputs(inputs), torch.from_numpy(noise))
            np.testing.assert_array_equal(outputs["latent_tokens"], tokens.numpy())
            expected = rounded(replace(policy_inputs(inputs), chosen=tokens)).numpy()
            np.testing.assert_allclose(outputs["actions"], expected, atol=TOLERANCE)
            seen |= set(tokens[0].tolist())
    assert len(seen) > 4


def test_tokens_in_float16_are_mostly_those_of_the_rounded_policy(
    tmp_path: Path, run_graph
) -> None:
    model = random_model("tiny", 0, "openvla")
    path = tmp_path / "policy.onnx"
    weights = write_policy(path, model, random_gates(model, 0), QuantizationScheme(), "float16")
    rounded = rounded_model(model, weights)
    same = []
    for seed in range(6):
        inputs = random_inputs(model.config, seed, 19)
        tokens = run_graph(path, inputs)["action_tokens"]
        same.append(tokens[0, 0] == rounded.generate(policy_inputs(inputs))[0, 0].item())
    assert sum(same) >= 5  # a near tie may fall the other way
