"""The bundles that drive the simulated arm in a comparison."""

from __future__ import annotations

from pathlib import Path

import pytest

from qvla_offline.compare.bundles import Bundles
from qvla_offline.error.subjects import Subjects
from qvla_offline.layer_statistics.run import compute_statistics
from qvla_offline.quantization.stored_statistics import StoredStatistics
from qvla_offline.sensitivity.options import SensitivityOptions
from tests.support.observations import write_observations


@pytest.fixture(scope="module")
def statistics(place: Path, tmp_path_factory: pytest.TempPathFactory) -> StoredStatistics:
    folder = tmp_path_factory.mktemp("magnitudes")
    calibration = write_observations(folder / "data", 2, seed=5)
    options = SensitivityOptions(probes=1)
    return compute_statistics(place / "tiny", calibration, folder / "statistics", options)


@pytest.mark.parametrize(
    ("scheme", "bits", "stored"),
    [
        ({"quantizer": "rtn"}, 4, 4),
        ({"quantizer": "rtn"}, 3, 16),
        ({"quantizer": "smoothquant"}, 4, 16),
    ],
)
def test_weights_that_no_container_holds_are_restored_to_float16(
    place: Path, statistics: StoredStatistics, tmp_path: Path, scheme: dict, bits: int, stored: int
) -> None:
    made_by = Subjects(place / "tiny", scheme=scheme | {"group_size": 16}, statistics=statistics)
    bundle = Bundles(tmp_path, made_by).of(made_by.of_uniform(bits))
    assert stored <= bundle.quantization.stored_bits_per_weight < stored + 3
    again = Bundles(tmp_path, made_by).of(made_by.of_uniform(bits))
    assert again.bundle_id == bundle.bundle_id
