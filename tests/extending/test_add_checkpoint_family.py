"""docs/how_to/add_checkpoint_family.md, followed to the letter with its own example."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qvla_ros.observation import Observation
from qvla_ros.policy import load_policy
from tests.extending.page import read_page

PAGE = read_page("add_checkpoint_family")


def test_the_page_needs_two_files_and_one_registration() -> None:
    assert (len(PAGE.sources), len(PAGE.registrations)) == (2, 1)


def test_a_family_added_from_the_page_goes_from_its_checkpoint_to_a_policy(checkout: Path) -> None:
    PAGE.follow(checkout)
    # The robot has the bundle alone: it knows nothing of the family.
    policy = load_policy(checkout / "out" / "toy" / "bundle", "onnxruntime", threads=1)
    assert policy.bundle.family == "readout"
    [camera] = policy.bundle.cameras
    image = np.zeros((camera.height, camera.width, 3), np.uint8)
    seen = Observation({camera.name: image}, np.array(()), "pick up the milk", 0, {})
    actions = policy.infer(seen).actions
    policy.close()
    assert actions.shape == (5, 7)
    assert np.ptp(actions) > 0.01
