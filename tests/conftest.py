"""What holds for every test: the same examples on every run, and no network."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

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
