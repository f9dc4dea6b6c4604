"""Training of the bundled policy, on made-up episodes: what is learnt from, what comes back after a stop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qvla_offline.checkpoints.config import PolicyConfig
from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.random_checkpoint import random_config
from qvla_offline.reference.augment import NONE, Augmentation, crop_images
from qvla_offline.reference.batches import normalize_actions
from qvla_offline.reference.demonstrations import CAMERAS, Episode, encode_jpeg, episode_path, write_episode
from qvla_offline.reference.samples import SampleSet, dataset_actions, dataset_statistics
from qvla_offline.reference.tokenizer import LIBERO_INSTRUCTIONS, PROMPT_TEMPLATE, padded_vocabulary, train_tokenizer
from qvla_offline.reference.train import train
from qvla_offline.reference.training_state import TrainingOptions

from qvla_ros.actions import unnormalize
from qvla_ros.bundle import PromptSpec, Statistics
from qvla_ros.errors import QvlaError
from qvla_ros.preprocess import center_crop, prompt_ids


def made_up_episode(seed: int, steps: int = 20, task_id: int = 0) -> Episode:
    rng = np.random.default_rng(seed)
    actions = np.full((steps, 7), 0.6 if task_id else -0.6) + rng.normal(0, 0.1, (steps, 7))  # the text tells which
    actions[:, -1] = np.where(np.arange(steps) < steps // 2, -1.0, 1.0)
    eef = rng.uniform(0, 0.3, (steps, 3))
    series = {
        "label_actions": actions,
        "executed_actions": actions,
        "is_push": np.zeros(steps, bool),
        "eef_position_m": eef,
        "eef_quaternion_xyzw": np.tile([1.0, 0.0, 0.0, 0.0], (steps, 1)),
        "gripper_positions_m": rng.uniform(0, 0.04, (steps, 2)) * [1, -1],
        "joint_positions_rad": np.zeros((steps, 7)),
        "object_position_m": eef + [0.1, 0.0, 0.0],
        "goal_position_m": eef + [0.0, 0.2, 0.0],
    }
    image_steps = np.arange(0, steps - 8, 4, dtype=np.int32)
    top_left_white = np.zeros((64, 64, 3), np.uint8)
    top_left_white[:32, :32] = 255
    return Episode(
        series={name: np.asarray(values, bool if name == "is_push" else np.float32) for name, values in series.items()},
        image_steps=image_steps,
        jpegs={camera: [encode_jpeg(top_left_white) for _ in image_steps] for camera in CAMERAS},
        facts={
            "instruction": LIBERO_INSTRUCTIONS[task_id],
            "suite": "libero_object",
            "task_id": task_id,
            "episode": seed,
            "seed": 0,
            "attempt": 0,
            "success_step": steps,
        },
    )


@pytest.fixture
def demonstrations(tmp_path: Path) -> Path:
    for episode in (0, 1, 19):
        for task in (0, 4):
            path = episode_path(tmp_path / "data", "libero_object", task, episode)
            write_episode(path, made_up_episode(episode, task_id=task))
    return tmp_path / "data"


def tiny_config() -> PolicyConfig:
    tokenizer = train_tokenizer()
    return random_config("tiny", padded_vocabulary(tokenizer), tokenizer.token_to_id("<PAD>"))


def tiny_options(demonstrations: Path, tmp_path: Path, run: str, steps: int) -> TrainingOptions:
    return TrainingOptions(
        demonstrations,
        out=tmp_path / run / "policy",
        work_dir=tmp_path / run / "work",
        steps=steps,
        batch_size=8,
        warmup_steps=2,
        decay_steps=0,
    )


def test_tokenizer_is_llamas_kind_and_always_the_same() -> None:
    tokenizer = train_tokenizer()
    assert tokenizer.to_str() == train_tokenizer().to_str()
    assert [tokenizer.token_to_id(token) for token in ("<unk>", "<s>", "</s>", "<0x00>")] == [0, 1, 2, 3]
    assert tokenizer.token_to_id("<PAD>") == tokenizer.get_vocab_size() - 1
    prompt = PromptSpec(PROMPT_TEMPLATE, lowercase=True, append_token_id=tokenizer.token_to_id("▁"))
    ids = prompt_ids(prompt, tokenizer, "Pick up the milk")[0]
    assert (ids[0], ids[-1]) == (1, prompt.append_token_id)
    text = tokenizer.decode(ids.tolist())
    assert text.strip() == PROMPT_TEMPLATE.format(instruction="pick up the milk")


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs"]), max_size=30))
@settings(max_examples=50, deadline=None)
def test_tokenizer_spells_unknown_words_in_bytes(text: str) -> None:
    tokenizer = train_tokenizer()
    text = " ".join(text.replace("▁", "").split())
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=True).strip() == text


def test_samples_are_upright_and_in_the_dataset_convention(demonstrations: Path, tmp_path: Path) -> None:
    samples = SampleSet(demonstrations, tmp_path / "cache", 32, lambda _: True)
    assert samples.refresh() == 6
    first = samples.episodes[0]
    assert first.images[0, 0, -8:, -8:].min() > 240  # the camera's top left corner ends up bottom right
    assert first.images[0, 0, :8, :8].max() < 15
    assert set(np.unique(first.chunks[..., -1])) == {0.0, 1.0}
    assert first.chunks[0, 0, -1] == 1.0  # simulator -1 is open, and open is 1
    np.testing.assert_allclose(first.object_from_eef_m, np.tile([0.1, 0.0, 0.0], (len(first), 1)), atol=1e-6)
    np.testing.assert_allclose(first.proprio[:, 3], np.pi, atol=1e-6)


def test_new_episodes_are_picked_up_and_the_cache_gives_the_same(demonstrations: Path, tmp_path: Path) -> None:
    samples = SampleSet(demonstrations, tmp_path / "cache", 28, lambda _: True)
    samples.refresh()
    before = len(samples)
    write_episode(episode_path(demonstrations, "libero_object", 0, 7), made_up_episode(7))
    assert samples.refresh() == 1
    assert len(samples) > before
    again = SampleSet(demonstrations, tmp_path / "cache", 28, lambda _: True)
    again.refresh()
    rng = [np.random.default_rng(0) for _ in range(2)]
    first, second = (set_.draw(16, generator) for set_, generator in zip((again, again), rng, strict=True))
    assert np.array_equal(first.images, second.images)
    assert {instruction for instruction in again.instructions} == set(samples.instructions)
    for episode in range(20, 29):  # 13 episodes against 3 now
        write_episode(episode_path(demonstrations, "libero_object", 0, episode), made_up_episode(episode))
    again.refresh()
    assert len(again.episodes) == 4 * 4
    share = (again.draw(4000, rng[0]).task == 0).mean()
    assert abs(share / (1 - share) - (13 / 3) ** 0.5) < 0.25


def test_training_crop_without_noise_is_the_robots() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 2, 56, 56, 3), dtype=np.uint8)
    ours = crop_images(torch.from_numpy(images), NONE, torch.Generator()).numpy() * 255.0
    robot = np.stack([[center_crop(view, 0.9).transpose(2, 0, 1) for view in sample] for sample in images])
    assert np.abs(ours - robot).max() <= 1.0  # the robot rounds to uint8


def test_noise_differs_between_samples_and_is_shared_by_views() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 1, 28, 28, 3), dtype=np.uint8)
    images = torch.from_numpy(np.tile(image, (2, 2, 1, 1, 1)))
    noisy = crop_images(images, Augmentation(), torch.Generator().manual_seed(0))
    assert torch.equal(noisy[:, 0], noisy[:, 1])
    assert not torch.allclose(noisy[0], noisy[1])


def test_normalised_actions_come_back_through_the_robots_formula() -> None:
    samples_actions = np.random.default_rng(0).uniform(-0.5, 0.5, (50, 7))
    samples_actions[:, -1] = samples_actions[:, -1] > 0
    action = {"q01": [-0.6] * 6 + [0.0], "q99": [0.7] * 6 + [1.0], "mask": [True] * 6 + [False]}
    low, high, mask = (np.array(action[name]) for name in ("q01", "q99", "mask"))
    statistics = Statistics(low=low, high=high, min=low, max=high, mask=mask)
    normalized = normalize_actions(samples_actions, action)
    np.testing.assert_allclose(unnormalize(normalized, statistics), samples_actions, atol=1e-6)


def test_statistics_leave_the_gripper_alone(demonstrations: Path, tmp_path: Path) -> None:
    samples = SampleSet(demonstrations, tmp_path / "cache", 28, lambda _: True)
    samples.refresh()
    statistics = dataset_statistics(samples.episodes)
    assert statistics["action"]["mask"] == [True] * 6 + [False]
    assert (statistics["action"]["q01"][-1], statistics["action"]["q99"][-1]) == (0.0, 1.0)
    assert dataset_actions(np.array([0, 0, 0, 0, 0, 0, 1.0]))[-1] == 0.0


def test_a_stopped_run_goes_on_exactly_where_it_stopped(demonstrations: Path, tmp_path: Path) -> None:
    config = tiny_config()
    lines: list[str] = []
    whole = train(tiny_options(demonstrations, tmp_path, "whole", 6), lines.append, config)
    train(tiny_options(demonstrations, tmp_path, "parts", 3), lines.append, config)
    parts = train(tiny_options(demonstrations, tmp_path, "parts", 6), lines.append, config)
    assert whole.step == parts.step == 6
    for name, tensor in whole.average.state_dict().items():
        assert torch.equal(tensor, parts.average.state_dict()[name]), name
    assert any("resumed" in line for line in lines)


def test_the_export_is_a_checkpoint_with_its_calibration_set(demonstrations: Path, tmp_path: Path) -> None:
    options = tiny_options(demonstrations, tmp_path, "run", 2)
    state = train(options, lambda _: None, tiny_config())
    checkpoint = load_checkpoint(options.out)
    assert checkpoint.step == 2
    weights = state.average.projector.fc1.weight.half().float()
    assert torch.equal(checkpoint.model.projector.fc1.weight, weights)
    lines = [json.loads(line) for line in (options.out / "calibration.jsonl").read_text().splitlines()]
    assert len(lines) == 64
    assert len({line["text"] for line in lines}) == 2
    assert all((options.out / line[key]).is_file() for line in lines for key in ("image", "wrist_image"))
    assert all(len(line["proprio"]) == 8 for line in lines)
    curve = [json.loads(line) for line in (options.work_dir / "curve.jsonl").read_text().splitlines()]
    assert curve[-1]["step"] == 2
    assert np.isfinite(curve[-1]["held_out"])


def test_training_learns(demonstrations: Path, tmp_path: Path) -> None:
    options = replace(tiny_options(demonstrations, tmp_path, "long", 1), precision="float32")
    train(options, lambda _: None, tiny_config())
    train(replace(options, steps=60), lambda _: None, tiny_config())
    curve = [json.loads(line) for line in (options.work_dir / "curve.jsonl").read_text().splitlines()]
    assert curve[-1]["training"] < 0.6 * curve[0]["training"]


def test_no_demonstrations_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(QvlaError, match="qvla demonstrations"):
        train(tiny_options(tmp_path / "nothing", tmp_path, "run", 1), lambda _: None, tiny_config())
