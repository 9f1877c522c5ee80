"""Every way in which this program can refuse, as one small tree.

VpmuError                   exit code
  UsageError                2    the question is badly put
  InputError                3    the bytes are not what they should be
    FormatError                  a structure contradicts itself or its format
    TruncatedError               a structure ends behind the end of the file
    LimitError                   a value is beyond what we are ready to believe
  ClockError                3    times that cannot be put on one trace clock
  MissingEvents             4    readable, but lacks what the question needs
  OutputError               5    cannot write
"""

from __future__ import annotations

__all__ = [
    "ClockError",
    "FormatError",
    "InputError",
    "LimitError",
    "MissingEvents",
    "OutputError",
    "TruncatedError",
    "UsageError",
    "VpmuError",
]


class VpmuError(Exception):
    """Base of all refusals; `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(VpmuError):
    """A flag, name or file of the user's own that we cannot take."""

    exit_code = 2


class InputError(VpmuError):
    """A recording or store that cannot be read.

    `str()` is one line: path, structure, byte offset, and both numbers (found and allowed).
    """

    exit_code = 3

    def __init__(self, path: str, structure: str, offset: int | None, problem: str) -> None:
        self.path = path
        self.structure = structure
        self.offset = offset
        self.problem = problem
        where = "" if offset is None else f" at offset {offset:#x}"
        super().__init__(f"{path}: {structure}{where}: {problem}")


class FormatError(InputError):
    """A structure that its format does not allow."""


class TruncatedError(InputError):
    """A structure that is longer than what is left of the file."""


class LimitError(InputError):
    """A number larger than any recording we are ready to believe."""


class ClockError(VpmuError):
    """Times of one recording that cannot be brought onto one trace clock."""

    exit_code = 3


class MissingEvents(VpmuError):
    """The recording is readable but lacks the events that the question needs."""

    exit_code = 4


class OutputError(VpmuError):
    """A store or result that cannot be written."""

    exit_code = 5
