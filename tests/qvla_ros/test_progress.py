"""Long work says how far it has come, also where its output goes into a file."""

from __future__ import annotations

import pytest

from qvla_ros import progress


@pytest.mark.parametrize(("total", "of"), [(None, " of 3"), (7, " of 7")])
def test_without_a_terminal_a_line_comes_now_and_then(
    total: int | None, of: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    assert list(progress.track([1, 2, 3], "hessian", total)) == [1, 2, 3]
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(" after ")[0] for line in err.splitlines()] == [
        f"hessian: 1{of}",
        f"hessian: 2{of}",
    ]


def test_short_work_is_silent_without_a_terminal(capsys: pytest.CaptureFixture) -> None:
    assert list(progress.track(iter("ab"), "hessian")) == ["a", "b"]
    assert capsys.readouterr() == ("", "")
