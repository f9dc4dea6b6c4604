"""Samples are in the robot's units and images, drawn by task and suite, and read once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from qvla_offline.checkpoints.tokenizer import LIBERO_INSTRUCTIONS
from qvla_reference.augment import NONE, Augmentation, crop_images
from qvla_reference.batches import normalize_actions
from qvla_reference.samples import SampleSet, dataset_actions, dataset_statistics
from qvla_ros.actions import unnormalize
from qvla_ros.bundle import Statistics
from qvla_ros.errors import QvlaError
from qvla_ros.preprocess import center_crop

Record = Callable[..., Path]


def everything(demonstrations: Path, tmp_path: Path) -> SampleSet:
    samples = SampleSet(demonstrations, tmp_path / "cache", 28, lambda _: True)
    samples.refresh()
    return samples


def test_samples_are_upright_and_in_the_dataset_convention(
    demonstrations: Path, tmp_path: Path
) -> None:
    samples = SampleSet(demonstrations, tmp_path / "cache", 32, lambda _: True)
    assert samples.refresh() == 6
    first = samples.episodes[0]
    # the camera's top left corner ends up bottom right
    assert first.images[0, 0, -8:, -8:].min() > 240
    assert first.images[0, 0, :8, :8].max() < 15
    assert set(np.unique(first.chunks[..., -1])) == {0.0, 1.0}
    assert first.chunks[0, 0, -1] == 1.0  # simulator -1 is open, and open is 1
    np.testing.assert_allclose(
        first.object_from_eef_m, np.tile([0.1, 0.0, 0.0], (len(first), 1)), atol=1e-6
    )
    np.testing.assert_allclose(first.proprio[:, 3], np.pi, atol=1e-6)


def test_new_episodes_are_picked_up_and_the_cache_gives_the_same(
    demonstrations: Path, tmp_path: Path, record: Record
) -> None:
    samples = everything(demonstrations, tmp_path)
    before = len(samples)
    record(demonstrations, 0, 7)
    assert samples.refresh() == 1
    assert len(samples) > before
    again = everything(demonstrations, tmp_path)
    first, second = (
        part.draw(16, np.random.default_rng(0))
        for part in (again, everything(demonstrations, tmp_path))
    )
    assert np.array_equal(first.images, second.images)
    assert set(again.tasks) == set(samples.tasks)


def test_a_refresh_takes_no_more_than_it_may(demonstrations: Path, tmp_path: Path) -> None:
    samples = SampleSet(demonstrations, tmp_path / "cache", 28, lambda _: True)
    assert [samples.refresh(4), samples.refresh(4), samples.refresh(4)] == [4, 2, 0]
    assert len(samples.episodes) == 6


def test_processes_decode_what_one_process_decodes(
    demonstrations: Path, tmp_path: Path, record: Record
) -> None:
    for number in range(2, 6):
        record(demonstrations, 4, number)
    together = SampleSet(demonstrations, tmp_path / "other", 28, lambda _: True)
    together.refresh(workers=2)
    alone = everything(demonstrations, tmp_path)
    assert len(together) == len(alone)
    first, second = (part.draw(16, np.random.default_rng(0)) for part in (together, alone))
    assert np.array_equal(first.images, second.images)


def test_a_cache_without_suites_is_made_anew(demonstrations: Path, tmp_path: Path) -> None:
    samples = everything(demonstrations, tmp_path)
    for cached in samples.cache.rglob("*.npz"):
        with np.load(cached) as archive:
            arrays = {
                name: archive[name] for name in archive.files if name not in ("suite", "task_id")
            }
        np.savez(cached, **arrays)
    assert everything(demonstrations, tmp_path).tasks == samples.tasks


def shares(
    samples: SampleSet, suite_weights: dict[str, float] | None = None
) -> dict[tuple[str, int], float]:
    drawn = samples.draw(6000, np.random.default_rng(0), suite_weights).task
    tasks = enumerate(samples.tasks)
    return {(task.suite, task.task_id): float((drawn == index).mean()) for index, task in tasks}


def test_a_tasks_share_grows_with_the_root_of_its_size(
    demonstrations: Path, tmp_path: Path, record: Record
) -> None:
    for number in range(20, 29):  # 12 episodes against 3
        record(demonstrations, 0, number)
    drawn = shares(everything(demonstrations, tmp_path))
    assert drawn["libero_object", 0] == pytest.approx(2 / 3, abs=0.03)


def test_the_same_instruction_in_another_suite_is_another_task(
    demonstrations: Path, tmp_path: Path, record: Record
) -> None:
    for number in range(3):
        record(demonstrations, 4, number, "libero_object_named")
    samples = everything(demonstrations, tmp_path)
    assert samples.instructions.count(LIBERO_INSTRUCTIONS[4]) == 2
    assert set(shares(samples)) == {
        ("libero_object", 0),
        ("libero_object", 4),
        ("libero_object_named", 4),
    }
    assert samples.episode_counts() == {"libero_object": 6, "libero_object_named": 3}
    assert all(share == pytest.approx(1 / 3, abs=0.03) for share in shares(samples).values())


def test_suite_weights_hold_for_suites_of_equal_size(
    demonstrations: Path, tmp_path: Path, record: Record
) -> None:
    for number in range(6):  # as many as libero_object has, of one task
        record(demonstrations, 0, number, "libero_spatial")
    samples = everything(demonstrations, tmp_path)
    drawn = shares(samples, {"libero_object": 1.0, "libero_spatial": 3.0, "libero_goal": 5.0})
    spatial = [share for (suite, _), share in drawn.items() if suite == "libero_spatial"]
    assert sum(spatial) == pytest.approx(0.75, abs=0.03)
    assert shares(samples, {"libero_spatial": 1.0})["libero_object", 0] == 0.0
    for number in range(6, 24):
        record(demonstrations, 0, number, "libero_spatial")
    samples.refresh()
    drawn = shares(samples, {"libero_object": 1.0, "libero_spatial": 1.0})
    # four times the samples, twice the share
    assert drawn["libero_spatial", 0] == pytest.approx(2 / 3, abs=0.03)
    with pytest.raises(QvlaError, match="suite_weights"):
        samples.draw(1, np.random.default_rng(0), {"libero_goal": 1.0})


def test_training_crop_without_noise_is_the_robots() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 2, 56, 56, 3), dtype=np.uint8)
    ours = crop_images(torch.from_numpy(images), 0.9, NONE, torch.Generator()).numpy() * 255.0
    robot = np.stack(
        [[center_crop(view, 0.9).transpose(2, 0, 1) for view in sample] for sample in images]
    )
    assert np.abs(ours - robot).max() <= 1.0  # the robot rounds to uint8


def test_noise_differs_between_samples_and_is_shared_by_views() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 1, 28, 28, 3), dtype=np.uint8)
    images = torch.from_numpy(np.tile(image, (2, 2, 1, 1, 1)))
    noisy = crop_images(images, 0.9, Augmentation(), torch.Generator().manual_seed(0))
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
    samples = everything(demonstrations, tmp_path)
    statistics = dataset_statistics(samples.episodes)
    assert statistics["action"]["mask"] == [True] * 6 + [False]
    assert (statistics["action"]["q01"][-1], statistics["action"]["q99"][-1]) == (0.0, 1.0)
    assert dataset_actions(np.array([0, 0, 0, 0, 0, 0, 1.0]))[-1] == 0.0
