"""How far is it? A bar on a terminal, silence elsewhere, a word before the first compilation."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["announce_compilation", "progress_bar"]


@contextmanager
def progress_bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """Yield `progress(done, total)` in bytes; draws on stderr only where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (TextColumn(name), BarColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def announce_compilation() -> None:
    """Say so before the first run compiles the kernels (their cache stands beside the package)."""
    package = Path(__file__).resolve().parent.parent
    if not any(package.glob("*/**/__pycache__/*.nbi")):
        print("first run: compiling kernels, once, some 17 seconds", file=sys.stderr)
