"""Shows how far long work has come.

It shows a bar on a terminal, and now and then a line in a file.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

Item = TypeVar("Item")
LINE_EVERY_S = 30.0


def track(
    items: Sequence[Item] | Iterable[Item], title: str, total: int | None = None
) -> Iterator[Item]:
    """Yields `items` and shows the progress on standard error.

    It shows a bar if that is a terminal, else a line every LINE_EVERY_S.
    """
    if sys.stderr.isatty():
        yield from rich_track(
            items, title, total=total, console=Console(stderr=True), transient=True
        )
        return
    count = len(items) if total is None and isinstance(items, Sized) else total
    started_s = time.monotonic()
    printed_s = started_s
    for done, item in enumerate(items):
        now_s = time.monotonic()
        if done and now_s - printed_s >= LINE_EVERY_S:
            of = "" if count is None else f" of {count}"
            print(
                f"{title}: {done}{of} after {now_s - started_s:.0f} s", file=sys.stderr, flush=True
            )
            printed_s = now_s
        yield item
