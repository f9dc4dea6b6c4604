"""Statistics of a checkpoint on a calibration set: from paths to the finished directory."""

from __future__ import annotations

from pathlib import Path

from qvla_offline.calibration import calibration_sha256
from qvla_offline.fingerprint import checkpoint_sha256
from qvla_offline.layer_statistics.gather import gather_statistics
from qvla_offline.quantization.stored_statistics import StatisticsWriter, StoredStatistics
from qvla_offline.sensitivity.action import Probing
from qvla_offline.sensitivity.inputs import load_inputs
from qvla_offline.sensitivity.options import SensitivityOptions
from qvla_ros.bundle import sha256_of


def compute_statistics(
    checkpoint_path: Path, calibration_path: Path, out_dir: Path, options: SensitivityOptions
) -> StoredStatistics:
    """Gather the statistics of every layer that is quantized and executed into `out_dir`.

    A directory that an interrupted run with equal inputs has left is completed.
    """
    sources = {
        "checkpoint_sha256": checkpoint_sha256(checkpoint_path),
        "calibration_sha256": calibration_sha256(
            calibration_path, options.max_samples, options.skip_bad_lines
        ),
    }
    if options.robot_path is not None:
        sources["robot_sha256"] = sha256_of(Path(options.robot_path))
    settings = {
        key: getattr(options, key) for key in ("max_samples", "probes", "seed", "unnorm_key")
    }
    writer = StatisticsWriter(out_dir, {"sources": sources, "settings": settings})
    inputs = load_inputs(checkpoint_path, calibration_path, options, out_dir)
    gather_statistics(
        inputs.policy,
        inputs.targets,
        inputs.samples,
        Probing((), options.probes, options.seed),
        writer.save,
        writer.finished(),
    )
    writer.close()
    return StoredStatistics(out_dir)
