"""A replay runs the policy on exactly the samples that a recorded chunk names, and compares."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qvla_ros.cli.main import main
from qvla_ros.errors import QvlaError
from qvla_ros.recording.source import find_bag

CHUNKS = "/arm/policy/action_chunk"


def replay(
    bag: Path, bundle_dir: Path, capsys: pytest.CaptureFixture, *options: str
) -> tuple[int, dict[str, Any]]:
    arguments = [
        "replay",
        str(bag),
        "--bundle",
        str(bundle_dir),
        "--engine_options",
        '{"threads": 1}',
        "--json",
    ]
    status = main([*arguments, *options])
    return status, json.loads(capsys.readouterr().out)


def test_the_same_policy_gives_the_same_to_the_last_bit(write, recorded, bundle_dir, capsys):
    status, found = replay(write("bag", recorded), bundle_dir, capsys, "--tolerance", "0")
    assert (status, found["matched"], found["unmatched"]) == (0, 6, [])
    assert {column["max"] for column in found["difference"].values()} == {0.0}
    # the later of two poses, as the chunks say; the images alone would not tell
    assert [answer["actions"][0][0] for answer in found["answers"]] == pytest.approx(
        [0.05 * number + 0.02 for number in range(6)], abs=1e-6
    )


def test_a_difference_above_the_tolerance_fails_and_names_its_column(
    write, recorded, bundle_dir, capsys
):
    for topic, content, _ in recorded:
        if topic == CHUNKS:
            content.data[1] += 0.001
    bag = write("bag", recorded)
    status, found = replay(bag, bundle_dir, capsys)
    assert status == 1
    assert found["failure"].startswith("actions differ by up to 0.001")
    apart = list(found["difference"].values())
    assert [column["max"] > 1e-6 for column in apart] == [
        False,
        True,
        False,
        False,
        False,
        False,
        False,
    ]
    assert apart[1]["mean"] == pytest.approx(0.001 / 4)  # one of the chunk's four actions
    assert replay(bag, bundle_dir, capsys, "--tolerance", "0.01")[0] == 0


def test_a_chunk_whose_samples_were_not_recorded_is_reported_and_left_out(
    write, recorded, bundle_dir, capsys
):
    second_image = next(i for i, (topic, *_) in enumerate(recorded) if "wrist" in topic)
    status, found = replay(
        write("bag", recorded[:second_image] + recorded[second_image + 1 :]), bundle_dir, capsys
    )
    assert (status, found["matched"]) == (0, 5)
    [lacking] = found["unmatched"]
    assert "lacks the message on /arm/camera/wrist/image_raw" in lacking["reason"]


def test_a_recording_of_which_nothing_can_be_computed_again_fails(
    write, recorded, bundle_dir, capsys
):
    wrist = next(content for topic, content, _ in recorded if "wrist" in topic)
    wrist.header.stamp.sec = 1
    first = [item for item in recorded if "wrist" not in item[0] or item[1] is wrist]
    status, found = replay(write("bag", first), bundle_dir, capsys)
    assert (status, found["matched"], len(found["unmatched"])) == (1, 0, 6)
    assert found["failure"] == "no recorded chunk could be computed again"


def test_without_chunks_the_policy_runs_whenever_the_node_would_have(
    write, recorded, bundle_dir, capsys
):
    without = [item for item in recorded if item[0] != CHUNKS]
    status, found = replay(write("bag", without), bundle_dir, capsys)
    assert (status, found["difference"], found["matched"]) == (0, None, 0)
    assert [answer["stamp_ns"] for answer in found["answers"]] == [
        1_700_000_000 * 10**9 + number * 100_000_000 for number in range(6)
    ]


def test_words_tell_another_bundle_and_every_column(write, recorded, bundle_dir, capsys):
    for topic, content, _ in recorded:
        if topic == CHUNKS:
            content.bundle_id = "0123456789abcdef"
    assert main(["replay", str(write("bag", recorded)), "--bundle", str(bundle_dir)]) == 0
    printed = capsys.readouterr().out
    for words in (
        "recorded with another bundle: 0123456789abcdef",
        "6 again, 0 cannot be",
        "gripper",
        "7.5 ms",
    ):
        assert words in printed
    assert printed.splitlines()[-1].split(None, 1) == ["result", "the same, within 1e-06"]


def test_chunks_of_another_robot_are_refused(write, recorded, bundle_dir, capsys):
    for topic, content, _ in recorded:
        if topic == CHUNKS:
            content.names[0] = "shoulder"
    assert main(["replay", str(write("bag", recorded)), "--bundle", str(bundle_dir)]) == 2
    assert "recorded chunk" in capsys.readouterr().err


@pytest.mark.parametrize("asked", [None, "/arm/policy/action_chunk"])
def test_of_two_policies_one_must_be_named(write: Callable, recorded, bundle_dir, capsys, asked):
    other = [
        ("/leg/policy/action_chunk", content, at)
        for topic, content, at in recorded
        if topic == CHUNKS
    ]
    arguments = ["replay", str(write("bag", recorded + other)), "--bundle", str(bundle_dir)]
    status = main(arguments + (["--chunk_topic", asked] if asked else []))
    assert status == (0 if asked else 2)
    assert asked or "/leg/policy/action_chunk" in capsys.readouterr().err


def test_a_path_that_is_no_bag_is_named(bundle_dir, tmp_path, capsys):
    assert main(["replay", str(tmp_path / "none"), "--bundle", str(bundle_dir)]) == 2
    assert str(tmp_path / "none") in capsys.readouterr().err.replace("\n", "")
    (tmp_path / "dataset.yaml").write_text("lerobot: here\n")
    with pytest.raises(QvlaError, match="0 of the keys ros2_bag"):
        find_bag(tmp_path / "dataset.yaml")
