"""Do the README's commands and the output beneath them still hold?"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import ROOT, run_command

README = (ROOT / "README.md").read_text()
CI_RUN = ROOT / ".ci" / "run"
FIRST_OUTPUT = re.compile(r"<!-- first-output -->(.*?)<!-- /first-output -->", re.DOTALL)


def commands() -> list[str]:
    """Return the README's commands that begin with making a venv, in order."""
    return [line for line in README.splitlines() if line.startswith("python3 -m venv ")]


def test_readme_gives_two_commands_of_one_line_each() -> None:
    first, second = commands()
    assert " .venv/bin/analyzer whatif fixtures/" in first
    assert second.endswith(" .venv/bin/just check test")


def test_ci_runs_the_test_command_of_the_readme_word_for_word() -> None:
    lines = CI_RUN.read_text().splitlines()
    assert lines[-1] == commands()[1]
    assert "set -euo pipefail" in lines
    assert os.access(CI_RUN, os.X_OK)


# The command runs where only its fixture is, so the store that it leaves stays out of the tree.
def test_first_command_prints_what_the_readme_shows(tmp_path: Path) -> None:
    block = FIRST_OUTPUT.search(README)
    assert block, "README.md has no first-output block"
    fence = re.search(r"```text\n(.*?)```", block[1], re.DOTALL)
    if fence is None:
        pytest.skip("README.md shows no first output yet")
    arguments = shlex.split(commands()[0].partition(" .venv/bin/analyzer ")[2])
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    done = run_command(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert strip_ends(done.stdout.decode()) == strip_ends(fence[1])


def strip_ends(text: str) -> list[str]:
    """Return the lines without the blanks that an editor may take from their ends."""
    return [line.rstrip() for line in text.strip().splitlines()]
