from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from qvla_offline.calibration import calibration_sha256, instruction_of, read_calibration
from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.robot import LIBERO
from qvla_ros.bundle import CameraSpec
from qvla_ros.errors import QvlaError, QvlaWarning
from qvla_ros.preprocess import image_tensor, prompt_ids

TEMPLATE = "In: What action should the robot take to {instruction}?\nOut:"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return load_checkpoint(write_random_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny"))


def write_lines(folder: Path, records: list[dict]) -> Path:
    generator = np.random.default_rng(0)
    for name in ("front.png", "wrist.png"):
        Image.fromarray(generator.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(folder / name)
    path = folder / "calibration.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def record(**changes) -> dict:
    whole = {
        "text": "Pick up the milk",
        "image": "front.png",
        "wrist_image": "wrist.png",
        "proprio": [0.0, 0.1, 0.5, 1.0, 0.0, 0.0, 0.02, -0.02],
    }
    return {key: value for key, value in (whole | changes).items() if value is not None}


def test_a_line_becomes_what_the_robot_feeds_the_policy(tmp_path, checkpoint):
    [sample] = read_calibration(write_lines(tmp_path, [record()]), checkpoint)
    size = checkpoint.config.vision[0].image_size
    assert sample.pixel_values.shape == (1, 12, size, size)
    frame = np.asarray(Image.open(tmp_path / "wrist.png"))
    camera = CameraSpec(
        "wrist",
        40,
        48,
        False,
        LIBERO.jpeg_quality,
        size,
        0.9,
        checkpoint.normalizations,
        resize_size=224,
    )
    assert torch.equal(sample.pixel_values[0, 6:], torch.from_numpy(image_tensor(camera, frame)))
    ids = prompt_ids(checkpoint.prompt, checkpoint.tokenizer, "pick up the milk")
    assert sample.input_ids.tolist() == ids.tolist()
    assert sample.proprio.shape == (1, 8)
    assert sample.proprio.abs().max() <= 1
    statistics = checkpoint.statistics["proprio"]
    middle = [(a + b) / 2 for a, b in zip(statistics["q01"], statistics["q99"], strict=True)]
    [centred] = read_calibration(write_lines(tmp_path, [record(proprio=middle)]), checkpoint)
    assert torch.allclose(centred.proprio, torch.zeros(8), atol=1e-6)


def test_whole_prompts_of_released_files_and_bare_instructions_read_the_same(tmp_path, checkpoint):
    prompt = TEMPLATE.format(instruction="pick up the milk")
    bare, whole = read_calibration(
        write_lines(tmp_path, [record(), record(text=prompt)]), checkpoint
    )
    assert torch.equal(bare.input_ids, whole.input_ids)
    assert instruction_of(" open the drawer ", TEMPLATE) == "open the drawer"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"image": "absent.png"}, r"line 2: image: got .*absent\.png"),
        ({"wrist_image": None}, "line 2: wrist_image: got no such key"),
        ({"proprio": None}, "line 2: proprio: got no such key"),
        ({"proprio": [1.0, 2.0]}, "line 2: proprio"),
        ({"proprio": [float("nan")] * 8}, "line 2: proprio"),
        ({"text": None}, "line 2: text"),
        ({"image": "calibration.jsonl"}, "line 2: image"),
    ],
)
def test_a_bad_line_is_named_or_counted(tmp_path, checkpoint, capsys, changes, named):
    path = write_lines(tmp_path, [record(), record(**changes), record()])
    with pytest.raises(QvlaError, match=named):
        read_calibration(path, checkpoint)
    assert len(read_calibration(path, checkpoint, skip_bad_lines=True)) == 2
    assert "skipped 1 bad lines, kept 2" in capsys.readouterr().out


def test_a_mark_of_the_byte_order_before_the_first_line_is_no_part_of_it(tmp_path, checkpoint):
    path = write_lines(tmp_path, [record(), record()])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_calibration(path, checkpoint)) == 2


def test_max_samples_stops_before_later_lines(tmp_path, checkpoint):
    path = write_lines(tmp_path, [record(), record(image="absent.png")])
    assert len(read_calibration(path, checkpoint, max_samples=1)) == 1


def test_broken_json_an_empty_file_and_an_absent_one_are_refused(tmp_path, checkpoint):
    path = write_lines(tmp_path, [])
    with pytest.raises(QvlaError, match="no usable line"):
        read_calibration(path, checkpoint)
    path.write_text("{'text'}\n")
    with pytest.raises(QvlaError, match="line 1"):
        read_calibration(path, checkpoint)
    (tmp_path / "image.jsonl").write_bytes(b"\xff\xd8\xff")
    for name in ("absent.jsonl", "image.jsonl"):
        with pytest.raises(QvlaError, match=rf"calib_jsonl.*{name}"):
            read_calibration(tmp_path / name, checkpoint)


def test_the_hash_changes_with_lines_and_with_pixels(tmp_path):
    path = write_lines(tmp_path, [record()])
    first = calibration_sha256(path)
    Image.fromarray(np.zeros((40, 48, 3), np.uint8)).save(tmp_path / "wrist.png")
    second = calibration_sha256(path)
    write_lines(tmp_path, [record(text="other")])
    assert len({first, second, calibration_sha256(path)}) == 3


def test_the_hash_covers_the_images_that_are_read_in_place_of_bad_lines(tmp_path, checkpoint):
    Image.fromarray(np.zeros((40, 48, 3), np.uint8)).save(tmp_path / "second.png")
    path = write_lines(tmp_path, [record(proprio=None), record(), record(image="second.png")])
    assert len(read_calibration(path, checkpoint, 2, skip_bad_lines=True)) == 2
    strict = calibration_sha256(path, 2)
    skipping = calibration_sha256(path, 2, skip_bad_lines=True)
    Image.fromarray(np.ones((40, 48, 3), np.uint8)).save(tmp_path / "second.png")
    assert calibration_sha256(path, 2, skip_bad_lines=True) != skipping
    assert calibration_sha256(path, 2) == strict  # without skipping, the third line is not reached


def test_libero_s_arm_is_assumed_aloud_for_statistics_of_another_dataset(tmp_path, checkpoint):
    path = write_lines(tmp_path, [record()])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_calibration(path, checkpoint)
    with pytest.warns(QvlaWarning, match="'bridge_orig'.*--robot_path"):
        read_calibration(path, replace(checkpoint, unnorm_key="bridge_orig"))
