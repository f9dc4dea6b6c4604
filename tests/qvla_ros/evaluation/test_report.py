"""The report needs no other file, shows what it was given, and leaves out the rest."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from qvla_ros.bundle import Bundle, QuantizationSummary, load_bundle
from qvla_ros.errors import QvlaError
from qvla_ros.evaluation.analysis import Analysis, MeasuredError, read_analysis
from qvla_ros.evaluation.episodes import EpisodeRecord
from qvla_ros.evaluation.report import write_report
from qvla_ros.evaluation.table import HEADERS, pairing_lines, table_rows

LAYERS = (
    "vision_backbone.featurizer.blocks.0.attn.qkv",
    "language_model.model.layers.0.mlp.up_proj",
)
ANALYSIS = Analysis(
    layers=LAYERS,
    sensitivity={2: (1.0, 2.0), 4: (0.1, 0.0)},
    best=((2.0, 3.0), (4.0, 0.1)),
    uniform={4: (4.2, 0.2)},
    chosen=(4.0, 0.1),
    unit="squared normalised action",
    cost="stored",
    measured=(MeasuredError("this recipe", 4.0, 0.2, 0.15, 0.3),),
    observations=210,
)


@pytest.fixture
def bundles(bundle_dir: Path, tmp_path: Path) -> dict[str, Bundle]:
    """Two bundles; the second claims 4.5 bits and has gates."""
    plain = load_bundle(bundle_dir)
    gates = {"layers": {LAYERS[0]: [4, 4, 8, 0], LAYERS[1]: [16, 2]}}
    (tmp_path / "gates.json").write_text(json.dumps(gates))
    summary = QuantizationSummary("action/optimal", "0" * 64, 4.5, 5.25, 1_234_567, 4_000_000, 64)
    return {"float": plain, "quantized": replace(plain, directory=tmp_path, quantization=summary)}


@pytest.fixture
def episodes(tmp_path: Path) -> list[EpisodeRecord]:
    video = tmp_path / "video" / "quantized <1>.mp4"
    video.parent.mkdir()
    video.write_bytes(b"")
    common = {
        "task_id": 7,
        "instruction": "pick up the milk & go",
        "duration_s": 6.0,
        "jerk_m_s3": None,
    }
    times = {"inference_ms": (10.0, 20.0), "stamp_to_command_ms": (30.0,)}
    return [
        EpisodeRecord(
            "float", init_state=0, success=False, steps=280, video=None, **common, **times
        ),
        EpisodeRecord(
            "quantized", init_state=0, success=True, steps=90, video=str(video), **common, **times
        ),
    ]


def report(tmp_path: Path, episodes, bundles, analysis: Analysis | None) -> str:
    path = tmp_path / "report.html"
    write_report(path, "Title", "Lead.", episodes, bundles, analysis, "make demo")
    return path.read_text(encoding="utf-8")


def test_the_table_says_what_was_counted_and_stored(bundles, episodes) -> None:
    row = dict(zip(HEADERS, table_rows(episodes, bundles)[1], strict=True))
    assert row["success"] == "1/1"
    assert row["weights MB"] == "1.23"
    assert row["bits/weight nominal / stored"] == "4.50 / 5.25"
    assert row["inference ms p50 / p99"] == "15.0 / 19.9"
    assert row["jerk m/s³"] == "–"
    assert pairing_lines(episodes, list(bundles)) == [
        "1 paired episodes: both solved 0, only float 0, only quantized 1, neither 0 "
        "(exact McNemar p = 1)"
    ]


def test_the_report_needs_nothing_but_itself_and_its_videos(
    tmp_path: Path, bundles, episodes
) -> None:
    html = report(tmp_path, episodes, bundles, ANALYSIS)
    references = re.findall(r'(?:src|href)="([^"#]+)"', html)
    assert references == ["video/quantized &lt;1&gt;.mp4"]
    assert html.count("<svg") == 5


def test_text_from_outside_is_escaped(tmp_path: Path, bundles, episodes) -> None:
    html = report(tmp_path, episodes, bundles, None)
    assert "pick up the milk &amp; go" in html
    assert "milk & go" not in re.sub(r"<svg.*?</svg>", "", html, flags=re.DOTALL)


def test_measured_errors_are_named_measured_and_predicted_ones_predicted(
    tmp_path: Path, bundles, episodes
) -> None:
    html = report(tmp_path, episodes, bundles, ANALYSIS)
    assert "measured: this recipe" in html
    assert "measured on 210 observations" in html
    assert "predicted: these gates" not in html
    unmeasured = replace(ANALYSIS, measured=(), observations=0)
    html = report(tmp_path, episodes, bundles, unmeasured)
    assert "measured: " not in html
    assert "Nothing was measured" in html
    assert "predicted: these gates" in html


def test_what_is_unknown_is_left_out(tmp_path: Path, bundles, episodes) -> None:
    html = report(tmp_path, episodes, {"float": bundles["float"]}, None)
    assert html.count("<svg") == 2
    assert "Bits by layer" not in html
    assert "Error of the actions against size" not in html


def test_an_analysis_is_read_as_written_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "analysis.json"
    path.write_text(json.dumps(asdict(ANALYSIS)))
    assert read_analysis(path) == ANALYSIS
    path.write_text("{}")
    with pytest.raises(QvlaError, match="layers"):
        read_analysis(path)
