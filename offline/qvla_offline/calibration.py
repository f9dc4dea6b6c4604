"""Turns recordings into the inputs that the policy sees on the robot, by the same preprocessing.

What a path may be, and which observations are taken of it:

    calibration.jsonl              the first lines (see datasets.jsonl_reader)
    a LeRobot dataset directory    frames spread evenly over it (datasets.lerobot_reader)
    a ROS 2 bag                    moments spread evenly over it (datasets.rosbag_reader); a
                                   directory, .mcap or .db3
    a YAML file                    one of the two latter, and its names: see config/calibration/

Without a YAML file, names are those of the policy node and of LeRobot's convention.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from qvla_offline.checkpoints.io import Checkpoint
from qvla_offline.checkpoints.model import PolicyInputs
from qvla_offline.datasets import jsonl_reader
from qvla_offline.datasets.observed import Needs, Observed
from qvla_offline.datasets.sources import LeRobotSource, find_source, source_files
from qvla_offline.fingerprint import beginnings_sha256, combined_sha256
from qvla_offline.robot import LIBERO, RobotCamera, RobotDescription, camera_spec
from qvla_ros.errors import QvlaError, QvlaWarning
from qvla_ros.preprocess import image_tensor, normalize_proprioception, prompt_ids


def read_calibration(
    path: str | Path,
    checkpoint: Checkpoint,
    max_samples: int | None = 32,
    skip_bad_lines: bool = False,
    robot: RobotDescription = LIBERO,
) -> list[PolicyInputs]:
    """Reads `max_samples` observations (None: all) as batches of one.

    They are on the CPU, in the dtype of the checkpoint.
    A JSONL line that is not JSON, lacks a key or names a missing image is a QvlaError naming the
    line; with skip_bad_lines it is counted and reported instead. (The released script drops such
    lines silently.) Whatever is wrong in a dataset or bag is a QvlaError. robot: whose image chain
    to apply, and whose names to look for.
    """
    needs = policy_needs(checkpoint, robot)
    found = find_source(Path(path))
    if found is None:
        return _read_jsonl(Path(path), needs, checkpoint, max_samples, skip_bad_lines, robot)
    root, source = found
    if isinstance(source, LeRobotSource):
        from qvla_offline.datasets.lerobot_reader import read_lerobot

        observations = read_lerobot(root, source, needs, max_samples)
    else:
        from qvla_offline.datasets.rosbag_reader import read_rosbag

        observations = read_rosbag(root, source, needs, max_samples)
    return [policy_inputs(observed, checkpoint, robot) for observed in observations]


def calibration_sha256(
    path: str | Path, max_samples: int | None = None, skip_bad_lines: bool = False
) -> str:
    """Hashes what read_calibration reads.

    That is a JSONL file and those images of its first `max_samples` lines that exist, or every file
    of a dataset or bag, and the YAML file that describes it. skip_bad_lines: the images of all
    lines, since reading goes on past bad ones, and the checkpoint decides which are bad.
    """
    path = Path(path)
    found = find_source(path)
    if found is None:
        return combined_sha256(
            [path, *jsonl_reader.image_files(path, None if skip_bad_lines else max_samples)]
        )
    return combined_sha256(source_files(path, found[0]))


def every_calibration_sha256(path: str | Path) -> set[str]:
    """Returns what calibration_sha256 gives for `path`, for every number of samples."""
    path = Path(path)
    if find_source(path) is not None:
        return {calibration_sha256(path)}
    return beginnings_sha256([path, *jsonl_reader.image_files(path, None)])


def policy_needs(checkpoint: Checkpoint, robot: RobotDescription) -> Needs:
    """Returns what the checkpoint reads, by the robot's names.

    QvlaError if the robot has not as many cameras or numbers.
    """
    decoding = checkpoint.config.decoding
    wanted = (
        ("cameras", len(robot.cameras), decoding.num_images),
        ("proprioception", len(robot.proprioception), decoding.proprio_dim),
    )
    for key, present, needed in wanted:
        if present < needed or (key == "proprioception" and needed and present != needed):
            fix = "describe the robot that the policy was trained on with --robot_path"
            raise QvlaError(
                f"robot {key}",
                f"{present} entries",
                f"{needed}, as the checkpoint's config.json has",
                fix,
            )
    if robot is LIBERO and not checkpoint.unnorm_key.startswith("libero"):
        found = (
            f"statistics of {checkpoint.unnorm_key!r}, and no description of the "
            "robot: LIBERO's arm is assumed"
        )
        advice = (
            "its cameras, units, frame and rate; describe the right one with "
            "--robot_path (config/robots/)"
        )
        warnings.warn(f"{found}, {advice}", QvlaWarning, stacklevel=2)
    cameras = robot.cameras[: decoding.num_images]
    return Needs(
        cameras=tuple(camera.name for camera in cameras),
        rotate_180=tuple(camera.rotate_180 for camera in cameras),
        proprioception=robot.proprioception if decoding.proprio_dim else (),
        pose_frame=robot.actions.frame,
    )


def policy_inputs(
    observed: Observed, checkpoint: Checkpoint, robot: RobotDescription = LIBERO
) -> PolicyInputs:
    """Turns one observation into model inputs, a batch of one."""
    dtype = next(checkpoint.model.parameters()).dtype
    pixels = []
    for image, turn in zip(observed.images, observed.rotate_180, strict=True):
        height, width, _ = image.shape
        camera = RobotCamera("calibration", height, width, turn)
        pixels.append(image_tensor(camera_spec(checkpoint, robot, camera), image))
    text = instruction_of(observed.text, checkpoint.prompt.template)
    proprio = None
    if len(observed.proprioception):
        proprio = torch.from_numpy(_normalized(observed, checkpoint))[None].to(dtype)
    return PolicyInputs(
        pixel_values=torch.from_numpy(np.concatenate(pixels))[None].to(dtype),
        input_ids=torch.from_numpy(
            prompt_ids(checkpoint.prompt, checkpoint.tokenizer, text, f"{observed.where}: text")
        ),
        proprio=proprio,
    )


def instruction_of(text: str, template: str) -> str:
    """Returns the instruction, whether `text` is one or a whole prompt around one."""
    head, tail = (part.strip() for part in template.split("{instruction}"))
    stripped = text.strip()
    if head and stripped.startswith(head):
        stripped = stripped.removeprefix(head).removesuffix(tail)
    return stripped.strip()


def sample_sha256(sample: PolicyInputs) -> str:
    """Hashes all that the policy reads of one observation: pixels, tokens and proprioception.

    The hash is equal for equal observations, whatever the format of their file.
    """
    digest = hashlib.sha256()
    for tensor in (sample.pixel_values, sample.input_ids, sample.proprio):
        if tensor is not None:
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def not_among(samples: Sequence[PolicyInputs], seen: Iterable[PolicyInputs]) -> list[PolicyInputs]:
    """Returns those of `samples`, in order, whose observation is none of those in `seen`."""
    known = {sample_sha256(sample) for sample in seen}
    return [sample for sample in samples if sample_sha256(sample) not in known]


def _read_jsonl(
    path: Path,
    needs: Needs,
    checkpoint: Checkpoint,
    max_samples: int | None,
    skip_bad_lines: bool,
    robot: RobotDescription,
) -> list[PolicyInputs]:
    samples: list[PolicyInputs] = []
    skipped = 0
    for where, line in jsonl_reader.lines(path):
        if len(samples) == max_samples:
            break
        try:
            samples.append(
                policy_inputs(
                    jsonl_reader.read_line(line, where, path.parent, needs), checkpoint, robot
                )
            )
        except QvlaError as error:
            if not skip_bad_lines:
                raise
            skipped += 1
            print(f"skipped {error.key}: {error.value}")
    if skipped:
        print(f"calibration: skipped {skipped} bad lines, kept {len(samples)}")
    if not samples:
        raise QvlaError(
            "calib_jsonl", f"{path}: no usable line", "at least one line", "check the file"
        )
    return samples


def _normalized(observed: Observed, checkpoint: Checkpoint) -> np.ndarray:
    values = observed.proprioception
    if not np.isfinite(values).all():
        fix = "take it out of the recording, or name another"
        raise QvlaError(f"{observed.where}: proprioception", values.tolist(), "finite numbers", fix)
    statistics = checkpoint.statistics["proprio"]
    low, high = (
        ("q01", "q99") if checkpoint.config.decoding.normalization == "q99" else ("min", "max")
    )
    return normalize_proprioception(
        values, statistics[low], statistics[high], statistics.get("mask")
    )
