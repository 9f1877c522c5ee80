"""Do the commands of docs/ run, and is their output still what stands beneath them?"""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

from tests.conftest import ROOT, run_command

BLOCK = re.compile(r"```(toml|console)\n(.*?)```", re.DOTALL)
CUT = "…"


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


def holds(printed: list[str], shown: list[str]) -> bool:
    """Say whether what is shown was printed; CUT stands for any lines, or none."""
    pieces: list[list[str]] = [[]]
    for line in shown:
        if line == CUT:
            pieces.append([])
        else:
            pieces[-1].append(line)
    if len(pieces) == 1:
        return printed == shown
    first, last = pieces[0], pieces[-1]
    if printed[: len(first)] != first or (last and printed[-len(last) :] != last):
        return False
    at = 0
    for piece in pieces:
        starts = range(at, len(printed) - len(piece) + 1)
        found = [n for n in starts if printed[n : n + len(piece)] == piece]
        if not found:
            return False
        at = found[0] + len(piece)
    return True


def test_a_cut_stands_for_any_lines() -> None:
    assert holds(["a", "b", "c"], ["a", CUT, "c"])
    assert holds(["a"], ["a", CUT])
    assert not holds(["a", "b"], ["a"])
    assert not holds(["a", "b"], [CUT, "c"])
    assert not holds(["x", "a"], ["a", CUT])


# Blocks of the page in order: a toml block is mine.toml from then on.
def test_the_page_on_placements_builds_a_design_as_it_says(tmp_path: Path) -> None:
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    ran = 0
    for kind, body in BLOCK.findall((ROOT / "docs" / "placements.md").read_text()):
        if kind == "toml":
            (tmp_path / "mine.toml").write_text(body)
            continue
        shown = body.splitlines()
        starts = [n for n, line in enumerate(shown) if line.startswith("$ ")] + [len(shown)]
        for begin, end in pairwise(starts):
            words = shlex.split(shown[begin].removeprefix("$ "))
            assert words[0] == "analyzer"
            done = run_command(tmp_path, *words[1:])
            want = [line.rstrip() for line in shown[begin + 1 : end]]
            if want and want[0].startswith("analyzer: "):
                assert (done.returncode, done.stdout) == (2, b"")
                assert lines(done.stderr.decode())[-1:] == want
            else:
                assert done.returncode == 0, done.stderr
                printed = lines(done.stdout.decode())
                assert holds(printed, want), printed
            ran += 1
    assert ran == 7
