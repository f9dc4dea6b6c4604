"""Shared memory of dead nodes is removed, that of living ones is left alone."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from qvla_ros.evaluation.shared_memory import Port, orphans, ports, remove_orphans, user_name


def test_only_what_nobody_holds_locked_is_removed(tmp_path: Path) -> None:
    for name in ("fastdds_dead", "fastdds_alive", "fastdds_port7411", "someone_elses"):
        (tmp_path / name).touch()
        (tmp_path / f"{name}_el").touch()
    (tmp_path / "sem.fastdds_port7411_mutex").touch()
    with (tmp_path / "fastdds_alive_el").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert orphans(tmp_path) == ["fastdds_dead", "fastdds_port7411"]
        assert remove_orphans(tmp_path) == 2
        assert not orphans(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"fastdds_alive", "fastdds_alive_el", "someone_elses", "someone_elses_el"}
    assert remove_orphans(tmp_path) == 1  # its process has ended


def test_a_machine_without_shared_memory_has_no_orphans(tmp_path: Path) -> None:
    assert remove_orphans(tmp_path / "absent") == 0


def test_ports_tell_whose_nodes_run_in_which_domain(tmp_path: Path) -> None:
    for name in ("fastdds_port7411", "fastdds_port23911", "fastdds_port7413", "fastdds_portx"):
        (tmp_path / name).touch()
    (tmp_path / "fastdds_port7413_el").touch()  # its process was killed
    (tmp_path / "fastdds_port23911_el").touch()
    me = user_name(os.getuid())
    with (tmp_path / "fastdds_port23911_el").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        found = ports(tmp_path)
    assert found == [Port(66, me, True), Port(0, me, False), Port(0, me, False)]


def test_a_user_that_this_machine_does_not_know_goes_by_its_number() -> None:
    assert user_name(0) == "root"
    assert user_name(123_456_789) == "123456789"
