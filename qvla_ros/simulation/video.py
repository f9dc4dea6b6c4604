"""Writes the frames that a policy read as an MP4 file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from qvla_ros.atomic import atomic_file
from qvla_ros.preprocess import rotate_180
from qvla_ros.simulation.specification import CAMERA_NAMES


def side_by_side(images: Mapping[str, np.ndarray]) -> np.ndarray:
    """All cameras in one upright frame, uint8 [H, sum of widths, 3]; LIBERO's are upside down."""
    return np.concatenate([rotate_180(images[name]) for name in CAMERA_NAMES], axis=1)


def write_video(path: Path, frames: list[np.ndarray], frames_per_second: float) -> None:
    """Encodes with H.264; the file appears whole or not at all. Needs imageio-ffmpeg."""
    import imageio_ffmpeg

    height, width = frames[0].shape[:2]
    with atomic_file(path) as temporary:
        # H.264 needs even sizes; macro_block_size 2 resizes only what is odd.
        writer = imageio_ffmpeg.write_frames(
            str(temporary),
            (width, height),
            fps=frames_per_second,
            macro_block_size=2,
            ffmpeg_log_level="error",
        )
        writer.send(None)
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
        writer.close()
