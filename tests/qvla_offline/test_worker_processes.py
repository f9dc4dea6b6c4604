"""Ctrl-C ends a command at once, although a process of it is deep in native code."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import signal, sys, time
from qvla_offline.worker_processes import ended_at_interrupt, spawned

def work(file):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})  # as native code
    open(file, "w").close()
    time.sleep(600)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with spawned(1) as pool, ended_at_interrupt():
        pool.submit(work, sys.argv[1]).result()
"""


def test_a_worker_that_hears_no_signal_ends_with_the_command(tmp_path: Path) -> None:
    script = tmp_path / "long_work.py"
    script.write_text(SCRIPT)
    begun = tmp_path / "begun"
    process = subprocess.Popen(
        [sys.executable, str(script), str(begun)], stderr=subprocess.PIPE, text=True
    )
    while not begun.exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in error
    assert process.returncode == -signal.SIGINT
