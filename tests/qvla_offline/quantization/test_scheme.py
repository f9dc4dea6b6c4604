from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from qvla_offline.quantization.scheme import BIT_WIDTHS, WHOLE_ROW, QuantizationScheme
from qvla_ros.errors import QvlaError

EARLIER = {
    "group_size": 64,
    "clip_search": True,
    "scale_dtype": "float16",
    "two_bit_storage": "int4",
}


@pytest.mark.parametrize(("search", "quantizer"), [(True, "clip_search"), (False, "rtn")])
def test_schemes_of_earlier_files_are_read_and_written_as_they_are(search, quantizer):
    written = EARLIER | {"clip_search": search}
    scheme = QuantizationScheme(**written)
    assert scheme.quantizer == quantizer
    assert scheme == QuantizationScheme(quantizer=quantizer)
    assert list(scheme.described().items()) == list(written.items())


def test_another_quantizer_is_named_where_the_scheme_is_written():
    scheme = QuantizationScheme(32, quantizer="released")
    written = scheme.described()
    assert written["quantizer"] == "released"
    assert "clip_search" not in written
    assert QuantizationScheme(**written) == scheme


@pytest.mark.parametrize("quantizer", ["clip_search", "rtn", "released"])
@pytest.mark.parametrize("search", [True, False])
def test_a_quantizer_can_be_replaced_by_any_other(search, quantizer):
    scheme = QuantizationScheme(clip_search=search)
    assert replace(scheme, quantizer=quantizer).quantizer == quantizer


@pytest.mark.parametrize("written", [{"clip_search": False}, {"quantizer": "released"}])
def test_the_quantizer_of_a_file_can_be_changed_to_the_default(written):
    assert replace(QuantizationScheme(**written), quantizer="clip_search") == QuantizationScheme()


@pytest.mark.parametrize(
    ("search", "quantizer"), [(False, "released"), (True, "released"), (True, "rtn")]
)
def test_a_clip_search_that_contradicts_the_quantizer_is_refused(search, quantizer):
    with pytest.raises(QvlaError, match=rf"^scheme\.clip_search: .*{quantizer}"):
        QuantizationScheme(clip_search=search, quantizer=quantizer)
    with pytest.raises(QvlaError, match=r"^scheme\.clip_search"):
        replace(QuantizationScheme(quantizer=quantizer), clip_search=search)


def test_an_unknown_quantizer_is_refused_naming_those_that_there_are():
    with pytest.raises(QvlaError, match=r"scheme\.quantizer: got best.*clip_search.*rtn"):
        QuantizationScheme(quantizer="best")


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256])
def test_every_power_of_two_from_16_to_256_is_a_group_size(size):
    assert QuantizationScheme(size).scales_per_row(size, 4) == 1
    assert QuantizationScheme(size).scales_per_row(size + 1, 4) == 2
    assert QuantizationScheme(size).scales_per_row(size + 1, 8) == 1


@pytest.mark.parametrize("size", [-1, 1, 8, 15, 17, 48, 512, 16.0, 0.0])
def test_any_other_group_size_is_refused(size):
    with pytest.raises(QvlaError, match=r"scheme\.group_size"):
        QuantizationScheme(size)


def test_a_row_may_have_one_scale_which_costs_what_it_does_at_8_bits():
    scheme = QuantizationScheme(WHOLE_ROW)
    assert [scheme.scales_per_row(1000, bits) for bits in BIT_WIDTHS] == [0, 1, 1, 1, 1, 0]
    assert scheme.row_bits(1000, 3) == 3016


def test_bits_of_a_row_are_those_of_its_codes_and_scales():
    wide = QuantizationScheme(64, scale_dtype="float32")
    assert [wide.row_bits(64, b) for b in (0, 2, 4, 8, 16)] == [0, 160, 288, 544, 1024]


def test_the_scheme_needs_no_torch():
    code = "import qvla_offline.quantization.scheme, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
