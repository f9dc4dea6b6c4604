"""The exported dataset has the recordings' frames and true times, whole or not at all."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from simplejpeg import decode_jpeg

from qvla_reference import lerobot_export as exporter
from qvla_reference.demonstrations import encode_jpeg, episode_path, read_episode
from qvla_reference.lerobot_export import export_demonstrations, uninterrupted_runs, upright_jpeg
from qvla_ros.errors import QvlaError
from tests.support.lerobot_recordings import dataset, demonstrations

__all__ = ["dataset", "demonstrations"]  # fixtures


def rows(dataset):
    return pq.read_table(dataset / "data/chunk-000/file-000.parquet").to_pylist()


def test_every_frame_of_the_recordings_is_there_once_with_its_own_numbers(dataset, demonstrations):
    recordings = [
        read_episode(episode_path(demonstrations, "libero_object", task, 0)) for task in (0, 1)
    ]
    frames = rows(dataset)
    assert [(row["recording_index"], row["recording_step"]) for row in frames] == [
        *((0, step) for step in (0, 3, 6, 18, 21)),
        *((1, step) for step in (0, 3)),
    ]
    for row in frames:
        recorded = recordings[row["recording_index"]]
        step = row["recording_step"]
        labels = recorded.series["label_actions"][step : step + 8]
        assert np.array_equal(np.array(row["action_chunk"], np.float32)[:, :6], labels[:, :6])
        assert [values[6] for values in row["action_chunk"]] == [
            1.0 if g < 0 else 0.0 for g in labels[:, 6]
        ]
        assert row["action"] == row["action_chunk"][0]
        assert row["executed_action"][:6] == recorded.series["executed_actions"][step, :6].tolist()
        assert row["observation.state"][:3] == recorded.series["eef_position_m"][step].tolist()
        assert row["next.success"] == (step + 1 >= 20)
        assert row["next.done"] == (step in (21, 3) and step == recorded.image_steps[-1])
        index = recorded.image_steps.tolist().index(step)
        for camera in ("agentview", "wrist"):
            upright = decode_jpeg(row[f"observation.images.{camera}"]["bytes"])
            assert (
                np.abs(upright[::-1, ::-1] - recorded.image(camera, index).astype(float)).max()
                <= 10
            )


def test_a_gap_ends_an_episode_so_that_times_within_one_are_true(dataset):
    info = json.loads((dataset / "meta/info.json").read_text())
    assert info["fps"] == pytest.approx(1 / 0.15)
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 7, 2)
    frames = rows(dataset)
    assert [row["episode_index"] for row in frames] == [0, 0, 0, 1, 1, 2, 2]
    assert [row["frame_index"] for row in frames] == [0, 1, 2, 0, 1, 0, 1]
    assert [row["index"] for row in frames] == list(range(7))
    for first, second in itertools.pairwise(frames):
        if first["episode_index"] == second["episode_index"]:
            elapsed_s = 0.05 * (second["recording_step"] - first["recording_step"])
            assert second["timestamp"] - first["timestamp"] == pytest.approx(elapsed_s)
    episodes = pq.read_table(dataset / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [(e["dataset_from_index"], e["dataset_to_index"]) for e in episodes] == [
        (0, 3),
        (3, 5),
        (5, 7),
    ]
    assert [e["tasks"] for e in episodes] == [
        ["pick up thing 0"],
        ["pick up thing 0"],
        ["pick up thing 1"],
    ]


def test_statistics_are_those_of_the_columns(dataset):
    statistics = json.loads((dataset / "meta/stats.json").read_text())
    state = np.array([row["observation.state"] for row in rows(dataset)])
    assert np.allclose(statistics["observation.state"]["mean"], state.mean(0))
    assert np.allclose(statistics["observation.state"]["q99"], np.quantile(state, 0.99, axis=0))
    assert np.shape(statistics["observation.images.wrist"]["mean"]) == (3, 1, 1)
    assert (
        0
        <= np.min(statistics["observation.images.wrist"]["min"])
        < 0.5
        < np.max(statistics["observation.images.wrist"]["max"])
        <= 1
    )


def test_turning_a_jpeg_twice_keeps_its_pixels():
    file = encode_jpeg(
        np.random.default_rng(0).integers(60, 200, (4, 4, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    )
    again = decode_jpeg(upright_jpeg(upright_jpeg(file)), fastupsample=True)
    assert np.abs(again - decode_jpeg(file, fastupsample=True).astype(float)).max() <= 6


def test_runs_are_cut_where_the_distance_changes():
    assert [run.tolist() for run in uninterrupted_runs(np.array([0, 3, 6, 18, 21, 30]), 3)] == [
        [0, 1, 2],
        [3, 4],
        [5],
    ]


def test_a_learners_recordings_are_another_dataset_and_missing_ones_are_named(
    demonstrations, tmp_path
):
    done = export_demonstrations(demonstrations, "libero_object", tmp_path / "learner", "learner")
    assert (done.recordings, done.frames) == (1, 2)
    [first, _] = rows(tmp_path / "learner")
    recorded = read_episode(episode_path(demonstrations, "libero_object", 1, 50000))
    assert np.allclose(np.array(first["action_chunk"])[:, :6], recorded.label_chunks[0, :, :6])
    with pytest.raises(QvlaError, match="no episode below"):
        export_demonstrations(demonstrations, "libero_goal", tmp_path / "goal")


def test_an_interrupted_export_leaves_nothing_and_a_foreign_folder_is_not_overwritten(
    demonstrations, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(exporter, "dataset_card", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            export_demonstrations(demonstrations, "libero_object", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(QvlaError, match="other files"):
        export_demonstrations(demonstrations, "libero_object", tmp_path / "mine")
