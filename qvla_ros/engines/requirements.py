"""What an engine needs of the library below it, for messages; nothing is imported."""

from __future__ import annotations

from qvla_ros.errors import QvlaError

# The first that is known to run the graphs; 1.17.3 ends with an error that names no version.
ONNXRUNTIME_AT_LEAST = (1, 19)


def onnxruntime_error(version: str) -> QvlaError | None:
    """Why this version of ONNX Runtime cannot run a bundle; None if it can, or is not read."""
    parts = version.split(".")[:2]
    if not all(part.isdigit() for part in parts) or tuple(map(int, parts)) >= ONNXRUNTIME_AT_LEAST:
        return None
    needed = ".".join(map(str, ONNXRUNTIME_AT_LEAST))
    fix = f"pip install 'onnxruntime>={needed}'"
    return QvlaError("ONNX Runtime", version, f"{needed} or later", fix)
