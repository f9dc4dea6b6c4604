"""One line that says how far long work has come; silent when nobody watches."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

Item = TypeVar("Item")


def track(items: Sequence[Item] | Iterable[Item], title: str, total: int | None = None) -> Iterator[Item]:
    """Yield `items`, with a bar on standard error if that is a terminal."""
    console = Console(stderr=True)
    yield from rich_track(items, title, total=total, console=console, disable=not sys.stderr.isatty(), transient=True)
