"""What holds for every test: the same examples on every run, no network, a home of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# No deadline: the first example pays for a kernel's compilation. No database and a fixed seed: a
# failure on one machine is a failure on all.
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
# `just laws`: new examples each time, and the blob that brings a failure back.
settings.register_profile("many", deadline=None, database=None, max_examples=2000, print_blob=True)
settings.load_profile("ci")


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Refuse every connection but those of AF_UNIX, which do not leave the machine."""

    def guard(name: str) -> Any:
        original = getattr(socket.socket, name)

        def connect(self: socket.socket, address: Any) -> Any:
            if self.family != socket.AF_UNIX:
                raise RuntimeError(f"a test wants to connect to {address!r}; the network is off")
            return original(self, address)

        return connect

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, guard(name))
        yield


@pytest.fixture(scope="session", autouse=True)
def state_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the note of the last store out of the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


def run_command(
    folder: Path, *arguments: str, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run `analyzer` in a process of its own, in `folder`, and return what it printed."""
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    environment.update(PYTHONPATH=str(ROOT), XDG_STATE_HOME=str(folder / "state"))
    return subprocess.run(
        [sys.executable, "-c", "from analyzer.cli import main; main()", *arguments],
        cwd=folder,
        env=environment,
        input=stdin,
        capture_output=True,
        check=False,
    )
