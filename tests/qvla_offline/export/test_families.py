"""Every family's checkpoint becomes a bundle whose commands are those of the checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from qvla_offline.audit import audit_bundle
from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.model import PolicyInputs
from qvla_offline.checkpoints.random_checkpoint import variants, write_random_checkpoint
from qvla_offline.checkpoints.targets import quantization_targets
from qvla_offline.engine import build_plan
from qvla_offline.export.bundle import export_bundle
from qvla_offline.export.options import NOISE_SEED, ExportOptions
from qvla_offline.fakequant import fake_quantize
from qvla_offline.gates import Gates, read_gates
from qvla_ros.bundle import load_bundle
from qvla_ros.diffusion import denoise_step, denoising_steps, start_noise
from qvla_ros.engines import Engine
from qvla_ros.errors import QvlaError
from qvla_ros.observation import Observation
from qvla_ros.policy import Policy, load_policy

KINDS = {
    "openvla": "action_tokens",
    "openvla_oft": "l1_chunk",
    "openvla_oft_diffusion": "diffusion",
    "openvla_oft_film": "l1_chunk",
    "univla": "univla",
}


def random_observation(policy: Policy, seed: int = 0) -> Observation:
    rng = np.random.default_rng(seed)
    images = {
        c.name: rng.integers(0, 256, (c.height, c.width, 3), np.uint8)
        for c in policy.bundle.cameras
    }
    count = 0 if policy.bundle.proprioception is None else len(policy.bundle.proprioception.names)
    return Observation(images, rng.uniform(-0.2, 0.2, count), "pick up the milk", 0, {})


class Listening:
    """An engine that keeps what it was asked and what it answered."""

    def __init__(self, engine: Engine) -> None:
        self.name = engine.name
        self.needs_warm_up = engine.needs_warm_up
        self.close = engine.close
        self._engine = engine
        self.runs: list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = []

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.runs.append((inputs, self._engine.run(inputs)))
        return self.runs[-1][1]


def expected_actions(checkpoint_dir: Path, policy: Policy, engine: Listening) -> np.ndarray:
    """Normalised, as the checkpoint's own network gives them for what the engine was asked.

    Denoising begins by dividing by the root of 1e-6, so that the last bits of float32 are soon
    those of the actions: each step is compared on its own, from where the policy was, and the
    actions follow from the last one.
    """
    drawn = {"noisy_actions", "timestep", "sampling_noise", "guess"}
    inputs = {name: array for name, array in engine.runs[0][0].items() if name not in drawn}
    model = load_checkpoint(checkpoint_dir).model
    tensors = PolicyInputs(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    random = np.random.default_rng(NOISE_SEED)
    if policy.bundle.decoder.kind == "diffusion":
        context = model.context(tensors)
        steps = denoising_steps(policy.bundle.decoder.diffusion.num_steps)
        np.testing.assert_array_equal(
            engine.runs[0][0]["noisy_actions"], start_noise((1, 8, 7), random)
        )
        for (asked, answered), (timestep, _) in zip(engine.runs, steps, strict=True):
            noisy = torch.from_numpy(asked["noisy_actions"])
            noise = model.predict_noise(tensors, context, noisy, timestep)
            np.testing.assert_allclose(answered["noise"], noise.numpy(), atol=2e-4)
        return denoise_step(noisy, noise, *steps[-1]).numpy()
    if policy.bundle.decoder.kind == "univla":
        gumbel = torch.from_numpy(random.gumbel(size=(1, 4, 50)).astype(np.float32))
        chosen = model.generate(tensors, gumbel)
        return model(PolicyInputs(tensors.pixel_values, tensors.input_ids, chosen=chosen)).numpy()
    return model(tensors).numpy()


@pytest.mark.parametrize(
    ("family", "guessed"),
    [*((family, False) for family in variants()), ("openvla", True), ("univla", True)],
)
def test_a_bundle_commands_what_the_fake_quantized_checkpoint_does(
    family: str, guessed: bool, tmp_path: Path
) -> None:
    checkpoint_dir = write_random_checkpoint(tmp_path / "checkpoint", family, seed=6)
    checkpoint = load_checkpoint(checkpoint_dir, lazily=True)
    rng = np.random.default_rng(0)
    layers = {
        name: rng.choice([0, 4, 8, 16], len(module.weight), p=[0.03, 0.27, 0.4, 0.3])
        for name, module in quantization_targets(checkpoint.model).items()
    }
    bundle_dir = export_bundle(
        checkpoint_dir,
        Gates(layers, "test"),
        tmp_path / "bundle",
        options=ExportOptions(guessed=guessed),
    )
    policy = load_policy(bundle_dir, "onnxruntime", threads=1)
    bundle = policy.bundle
    kind = KINDS.get(family, bundle.decoder.kind)
    assert (bundle.family, bundle.decoder.kind) == (checkpoint.family.name, kind)
    assert len(bundle.cameras) == checkpoint.config.decoding.num_images
    assert bundle.actions.chunk_length == checkpoint.config.decoding.chunk_length

    assert audit_bundle(bundle_dir).complaints == []

    fake = fake_quantize(
        checkpoint_dir,
        read_gates(bundle_dir / "gates.json"),
        tmp_path / "fake",
        dtype=torch.float32,
    )
    observation = random_observation(policy)
    policy.engine = engine = Listening(policy.engine)
    prediction = policy.infer(observation)
    normalized = expected_actions(fake, policy, engine)
    low = bundle.statistics["action"].low
    high = bundle.statistics["action"].high
    commanded = 0.5 * (normalized[0].astype(np.float64) + 1) * (high - low) + low
    commanded[:, 6] = normalized[0, :, 6]
    limits = np.array(bundle.actions.limits).T
    np.testing.assert_allclose(prediction.actions, np.clip(commanded, *limits), atol=2e-4)
    assert np.ptp(prediction.actions) > 0.05
    policy.close()


def test_an_ensembled_bundle_gives_one_action_a_look_and_tells_its_tokens(tmp_path: Path) -> None:
    checkpoint_dir = write_random_checkpoint(tmp_path / "checkpoint", "univla")
    policy = load_policy(
        export_bundle(
            checkpoint_dir, None, tmp_path / "bundle", options=ExportOptions(ensemble=True)
        ),
        "onnxruntime",
    )
    policy.warm_up()
    first = policy.graph_inputs(random_observation(policy, 0))["input_ids"]
    actions = [policy.infer(random_observation(policy, seed)).actions for seed in range(3)]
    assert {chunk.shape for chunk in actions} == {(1, 7)}
    later = policy.graph_inputs(random_observation(policy, 3))["input_ids"]
    latent = load_checkpoint(checkpoint_dir).tokenizer.token_to_id("<ACT_0>")
    assert (later >= latent).any()
    assert not (first >= latent).any()
    policy.close()


@pytest.mark.parametrize(
    ("family", "option"), [("openvla", "ensemble"), ("openvla_oft", "guessed")]
)
def test_an_option_of_another_family_is_refused(tmp_path: Path, family: str, option: str) -> None:
    checkpoint_dir = write_random_checkpoint(tmp_path / "checkpoint", family)
    with pytest.raises(QvlaError, match=option):
        export_bundle(
            checkpoint_dir, None, tmp_path / "bundle", options=ExportOptions(**{option: True})
        )


def test_an_unrolled_quantized_graph_is_not_given_to_tensorrt_rtx(tmp_path: Path) -> None:
    checkpoint_dir = write_random_checkpoint(tmp_path / "checkpoint", "openvla")
    targets = quantization_targets(load_checkpoint(checkpoint_dir, lazily=True).model)
    gates = Gates(
        {name: np.full(len(module.weight), 8) for name, module in targets.items()}, "test"
    )
    with pytest.raises(QvlaError, match="export again with --guessed"):
        build_plan(export_bundle(checkpoint_dir, gates, tmp_path / "bundle"), "rtx")


def test_both_graphs_of_an_unrolled_policy_agree(tmp_path: Path) -> None:
    checkpoint_dir = write_random_checkpoint(tmp_path / "checkpoint", "univla")
    targets = quantization_targets(load_checkpoint(checkpoint_dir, lazily=True).model)
    rng = np.random.default_rng(1)
    gates = Gates(
        {n: rng.choice([0, 2, 4, 8, 16], len(m.weight)) for n, m in targets.items()}, "test"
    )
    bundle = load_bundle(export_bundle(checkpoint_dir, gates, tmp_path / "bundle"))
    actions = []
    for weights in ("unpacked", "packed_exact"):
        policy = load_policy(bundle.directory, "onnxruntime", threads=1, weights=weights)
        actions.append(policy.infer(random_observation(policy)).actions)
        policy.close()
    np.testing.assert_allclose(*actions, atol=1e-5)
