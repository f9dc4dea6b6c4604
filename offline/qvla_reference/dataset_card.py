"""Composes the README.md of an exported dataset: what to know before training on it."""

from __future__ import annotations

from qvla_ros.simulation.specification import CONTROL_PERIOD_S

_DRIVERS = {
    "expert": "A scripted expert that knows where the objects are drove the arm. Every command "
    "carried Gaussian noise, and now and then a random push was held for some steps (noise "
    "injection: Laskey et al. 2017, DART), so that the data teach recovery. Recordings that did "
    "not end in success were dropped.",
    "learner": "A half-trained policy drove the arm, and at each of its inferences the scripted "
    "expert labelled what it would have done (DAgger: Ross et al. 2011). Recordings that failed "
    "are kept: there the labels matter most.",
}
_CARD = """\
---
task_categories: [robotics]
tags: [LeRobot, LIBERO, simulation]
configs: [{{config_name: default, data_files: data/*/*.parquet}}]
---

# {suite}: a scripted expert in LIBERO

LeRobot dataset v3.0, written by `qvla reference export_demonstrations`. {driver} The scenes are
placements sampled by the simulator, never LIBERO's official initial states: those are the test set.

## Times: read this before you build action chunks

The arm was commanded at {rate_hz:g} Hz (every {control_ms:g} ms). Images were taken every {period}
steps only, so **fps is {fps:.6g}** (one frame every {frame_ms:g} ms), and none where a random push
was near. An episode of this dataset is one uninterrupted run of frames: within it `timestamp` =
`frame_index` / fps is the true time since its first frame. A recording with pushes in it is several
episodes; `recording_index` and `recording_step` put them together.

- `action` is one command of {control_ms:g} ms. Consecutive rows of `action` are {frame_ms:g} ms
  apart: **the commands between them are not rows**. Chunks built from `action` with
  `delta_timestamps` skip commands, and must not be executed at {rate_hz:g} Hz.
- `action_chunk` holds the commands without gaps: the expert's next eight at {rate_hz:g} Hz, from
  this frame on. Train on it.

## Features

- `observation.images.agentview`, `observation.images.wrist`: JPEG files, upright. LIBERO renders
  upside down; they were turned by 180 degrees and compressed again, which moved pixels by 0.08 of
  255 on average.
- `observation.state` [8]: position (m) and axis-angle (rad) of the end effector in the world frame,
  two finger positions (m); not normalised.
- `action` [7]: the expert's command at this frame: six OSC_POSE deltas in [-1, 1], then the
  gripper, 1 open and 0 closed (convention of the released datasets; the simulator's is -1 open, +1
  closed).
- `action_chunk` [8, 7]: the expert's commands at this step and the next seven; its first row is
  `action`.
- `executed_action` [7]: what was done at this frame: the command with noise, or the learner's; not
  to be imitated.
- `next.success`: the task is done after this frame's command.
- `next.done`: last frame of the recording, so not of every episode (see above).
- `recording_index`, `recording_step`: which recording, and which of its {control_ms:g} ms steps.
"""


def dataset_card(suite: str, driver: str, period: int) -> str:
    """Returns the card in Markdown.

    driver: who drove; period: steps of the controller between two images.
    """
    frame_s = period * CONTROL_PERIOD_S
    return _CARD.format(
        suite=suite,
        driver=_DRIVERS[driver],
        rate_hz=1 / CONTROL_PERIOD_S,
        control_ms=CONTROL_PERIOD_S * 1e3,
        period=period,
        fps=1 / frame_s,
        frame_ms=frame_s * 1e3,
    )
