"""Reads one frame of a video file, by the ffmpeg that comes with imageio-ffmpeg."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qvla_ros.errors import QvlaError


def video_frame(path: Path, time_s: float, fps: float) -> np.ndarray:
    """Reads the frame shown `time_s` after the beginning, uint8 [H, W, 3], RGB.

    fps: frames a second.
    """
    try:
        import imageio_ffmpeg
    except ImportError:
        fix = (
            "pip install imageio-ffmpeg (from a checkout: make setup), or use a dataset "
            "with embedded images"
        )
        raise QvlaError(str(path), "a video", "imageio-ffmpeg to decode it", fix) from None
    if not path.is_file():
        raise QvlaError(
            str(path),
            "no such file",
            "a video of the dataset",
            "download the dataset with its videos",
        )
    earliest_s = max(0.0, time_s - 0.5 / fps)  # ffmpeg shows the first frame at or after it
    frames = imageio_ffmpeg.read_frames(
        path,
        input_params=["-threads", "1", "-ss", f"{earliest_s:.6f}"],
        output_params=["-vframes", "1"],
    )
    try:
        width, height = next(frames)["size"]
        return np.frombuffer(next(frames), np.uint8).reshape(height, width, 3)
    except (OSError, StopIteration) as error:
        fix = "check that the file is whole and its codec known to ffmpeg"
        raise QvlaError(
            f"{path} at {time_s:.3f} s", str(error)[-200:] or "no frame", "a frame", fix
        ) from None
    finally:
        frames.close()
