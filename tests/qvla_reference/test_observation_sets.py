"""Sets of observations of the policy at work."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from qvla_reference.frames import Frame, roll_out_frames, wanted_chunks
from qvla_reference.observation_sets import (
    SETS,
    SUITES,
    ObservationSet,
    Share,
    record_set,
    spread,
)
from qvla_ros.bundle import PromptSpec
from qvla_ros.simulation.libero import HOLD_ACTION
from qvla_ros.simulation.specification import SUITE_TASK_COUNTS

PROMPT = PromptSpec("Please {instruction}!", lowercase=True, append_token_id=None)
SMALL = ObservationSet("small", 7, (Share(2, 2, 2), Share(1, 1, 1), Share(3, 1, 1)))


@pytest.fixture
def simulator(monkeypatch):
    """Counts the roll-outs in place of running them; a frame's picture says which it is of."""
    seeds = []

    def roll_out(task, policy, seed, wanted):
        if policy is not None:
            policy(len(seeds))
        seeds.append(tuple(seed))
        images = {
            camera: np.full((8, 8, 3), seed[2], np.uint8) for camera in ("agentview", "wrist")
        }
        images["agentview"][0, 0] = 255
        return [Frame(f"Fetch {task}", images, np.arange(8) / 3, 8 * chunk) for chunk in wanted]

    monkeypatch.setattr("qvla_reference.observation_sets.roll_out_frames", roll_out)
    return seeds


def record(out, policy=None):
    path = record_set(SMALL, out, PROMPT, policy, lambda suite, task: task, lambda text: None)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_says_what_is_seen_and_where_it_is_from(tmp_path, simulator):
    lines = record(tmp_path)
    assert len(lines) == 8 + 1 + 3
    assert Counter(line["suite"] for line in lines) == dict(zip(SUITES, (8, 1, 3), strict=True))
    line = next(line for line in lines if (line["suite"], line["task_id"]) == (SUITES[2], 2))
    assert line["text"] == "Please fetch 2!"
    assert line["proprio"][:3] == [0.0, 0.333333, 0.666667]
    assert line["step"] % 8 == 0
    image = np.asarray(Image.open(tmp_path / line["image"]))
    assert image.shape == (8, 8, 3)
    assert image[0, 0, 0] < image[-1, -1, 0]  # turned: the mark is in the other corner
    assert not list(tmp_path.glob("*.partial"))


def test_an_interrupted_recording_goes_on_and_gives_the_same_set(tmp_path, simulator):
    def interrupt(done):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(tmp_path / "interrupted", interrupt)
    assert not (tmp_path / "interrupted" / "small.jsonl").exists()
    before = list(simulator)
    lines = record(tmp_path / "interrupted")
    assert not set(before) & set(simulator[len(before) :])
    assert lines == record(tmp_path / "whole")


def test_no_placement_is_in_two_sets_and_every_task_is_in_each():
    seeds = [(s.seed, *episode) for s in SETS.values() for episode in s.episodes()]
    assert len(seeds) == len(set(seeds))
    for chosen in SETS.values():
        tasks = [share.tasks for share in chosen.shares]
        assert tasks == [SUITE_TASK_COUNTS[suite] for suite in SUITES]
    held_out = sum(tasks * episodes * frames for tasks, episodes, frames in SETS["held_out"].shares)
    assert held_out >= 192


def test_every_first_part_is_even_over_suites_tasks_and_time():
    lines = [
        {"suite": suite, "task_id": task, "episode": episode, "step": 8 * chunk}
        for suite in SUITES
        for task in range(10)
        for episode in range(2)
        for chunk in wanted_chunks(4, 2 * task + episode)
    ]
    ordered = spread(lines)
    assert sorted(map(str, ordered)) == sorted(map(str, lines))
    first = ordered[:30]
    assert set(Counter(line["suite"] for line in first).values()) == {10}
    assert {line["task_id"] for line in first if line["suite"] == SUITES[0]} == set(range(10))
    steps = [line["step"] for line in first]
    assert np.mean(steps) == pytest.approx(np.mean([line["step"] for line in lines]), rel=0.2)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_many_episodes_want_all_chunks_about_equally_often(count):
    wanted = [wanted_chunks(count, episode) for episode in range(400)]
    assert {len(chunks) for chunks in wanted} == {count}
    often = Counter(chunk for chunks in wanted for chunk in chunks)
    assert set(often) == set(range(16))
    assert max(often.values()) - min(often.values()) <= 3


class FakeTask:
    """A task that succeeds after `succeeds_after` steps; a picture holds the step's number."""

    instruction = "fetch"

    def __init__(self, succeeds_after: int = 1000, max_steps: int = 1000) -> None:
        self.succeeds_after = succeeds_after
        self.max_steps = max_steps

    def reset(self, init_state, seed):
        assert init_state is None
        self.seed = seed
        self.steps = 0
        return self.observed(True)

    def step(self, action, render):
        self.steps += 1
        return self.observed(render), self.steps >= self.succeeds_after

    def observed(self, render):
        from qvla_ros.simulation.libero import LiberoObservation

        image = np.full((4, 4, 3), self.steps, np.uint8)
        images = {"agentview": image} if render else {}
        upright = np.array([0.0, 0.0, 0.0, 1.0])
        return LiberoObservation(
            self.steps, 0.0, images, np.zeros(3), upright, np.zeros(7), np.zeros(2)
        )


def idle(observation, instruction):
    assert observation.images
    return np.tile(HOLD_ACTION, (8, 1))


def test_frames_are_those_at_the_wanted_chunks():
    task = FakeTask()
    frames = roll_out_frames(task, idle, (1, 2), [0, 3, 5])
    assert [frame.step for frame in frames] == [0, 24, 40]
    assert [int(frame.images["agentview"][0, 0, 0]) for frame in frames] == [0, 24, 40]
    assert task.steps <= 48  # no longer than needed
    first = task.seed
    roll_out_frames(task, idle, (1, 3), [0])
    assert task.seed != first


@pytest.mark.parametrize("task", [FakeTask(succeeds_after=30), FakeTask(max_steps=32)])
def test_chunks_that_an_episode_did_not_reach_are_replaced_by_others(task):
    steps = [frame.step for frame in roll_out_frames(task, idle, (1,), [1, 6, 9])]
    assert steps == [0, 8, 16]
    assert len(roll_out_frames(task, idle, (1,), list(range(5, 15)))) == 4


@pytest.mark.simulation
def test_in_libero_the_arm_stands_where_it_stood_and_both_cameras_see(milk_task):
    frames = roll_out_frames(milk_task, idle, (3_000_003, 0, 7, 0), [0])
    assert set(frames[0].images) == {"agentview", "wrist"}
    assert frames[0].proprioception.shape == (8,)
    again = roll_out_frames(milk_task, idle, (3_000_003, 0, 7, 0), [0])
    np.testing.assert_array_equal(again[0].images["wrist"], frames[0].images["wrist"])
