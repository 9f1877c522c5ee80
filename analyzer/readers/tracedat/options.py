"""What do the options tell of machine, recorder, clock and statistics?"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from analyzer.errors import FormatError
from analyzer.readers.recording import RecordingFacts
from analyzer.readers.tracedat.clocks import NANOSECONDS, TscScale, clock_in_use
from analyzer.readers.tracedat.parts import Buffer, Option, OptionId, Parts
from analyzer.readers.tracedat.source import Cursor, PlainBytes
from analyzer.trouble import Trouble

__all__ = ["CpuStatistics", "Said", "read_options"]

_STATISTIC = re.compile(r"^([a-z ]+):\s*(\d+)\s*$", re.MULTILINE)
_BUFFER = re.compile(r"^\s*Buffer: (.*\S)\s*$")


@dataclass(frozen=True, slots=True)
class CpuStatistics:
    """Counts out of one CPU's per_cpu/cpuN/stats when the recorder ended."""

    overrun: int
    commit_overrun: int
    dropped_events: int


@dataclass(slots=True)
class Said:
    """What the options say. `cpu_statistics` by (instance, cpu), `guest_vcpus` by host thread."""

    scale: TscScale | None = None
    clock: str = "unknown"
    cpu_statistics: dict[tuple[str, int], CpuStatistics] = field(default_factory=dict)
    guest_vcpus: dict[int, int] = field(default_factory=dict)

    def clock_of(self, buffer: Buffer) -> str:
        """Return the clock of one buffer; the top one's where its entry does not tell."""
        return clock_in_use(buffer.clock) if buffer.clock else self.clock


def _text(option: Option) -> str:
    return option.raw.split(b"\0")[0].decode("utf-8", "backslashreplace").strip()


def read_options(path: str, parts: Parts, facts: RecordingFacts, trouble: Trouble) -> Said:
    """Fill `facts` and return what else the options say; FormatError for one that is too short."""
    said = Said()
    order: Literal["big", "little"] = "big" if parts.big else "little"
    date: int | None = None
    offset = 0
    instance = ""
    for option in parts.options:
        if option.id == OptionId.UNAME:
            # "Linux HOST RELEASE MACHINE"; a release holds no blanks.
            words = _text(option).split()
            if len(words) >= 4:
                facts.kernel, facts.machine = words[2], words[-1]
        elif option.id == OptionId.VERSION:
            facts.recorder = f"trace-cmd {_text(option)}".strip()
        elif option.id == OptionId.TRACECLOCK and option.raw:
            said.clock = clock_in_use(_text(option))
        elif option.id == OptionId.CPUCOUNT and len(option.raw) >= 4:
            facts.cpus = int.from_bytes(option.raw[:4], order)
        elif option.id == OptionId.DATE:
            date = _number(path, option)
        elif option.id == OptionId.OFFSET:
            offset = _number(path, option)
        elif option.id == OptionId.CPUSTAT:
            instance = _statistics(option, instance, said)
        elif option.id == OptionId.TSC2NSEC:
            said.scale = _scale(path, option, order)
        elif option.id == OptionId.GUEST:
            said.guest_vcpus.update(_guest(path, option, parts.big))
        elif option.id == OptionId.TIME_SHIFT:
            trouble.add("guest_times_unshifted", 1, f"option at offset {option.offset:#x}")
    top = next((buffer for buffer in parts.buffers if not buffer.name), parts.buffers[0])
    if parts.clock is not None:
        said.clock = clock_in_use(parts.clock)
    if said.clock == "unknown" and top.clock:
        said.clock = clock_in_use(top.clock)
    if said.clock == "unknown" and not any(o.id == OptionId.TRACECLOCK for o in parts.options):
        # Before there was a choice the clock was "local"; the peer takes it for that too.
        said.clock = "local"
    facts.clock = said.clock_of(top)
    if facts.clock not in NANOSECONDS and said.scale is None:
        trouble.add("clock_without_unit", 1, facts.clock)
    if facts.cpus is None:
        facts.cpus = parts.cpus
    if date is not None:
        # DATE is in microseconds; trace-cmd:lib/trace-cmd/trace-input.c handle_options.
        facts.realtime_offset_ns = date * 1000 + offset
    return said


def _number(path: str, option: Option) -> int:
    text = _text(option)
    try:
        value = int(text, 0)
    except ValueError as error:
        name = f"option {OptionId(option.id).name}"
        raise FormatError(path, name, option.offset, f"{text[:40]!r} is no number") from error
    if abs(value) >= 1 << 62:
        name = f"option {OptionId(option.id).name}"
        raise FormatError(path, name, option.offset, f"{value} is beyond 2^62")
    return value


def _scale(path: str, option: Option, order: Literal["big", "little"]) -> TscScale:
    if len(option.raw) < 8:
        problem = f"has {len(option.raw)} bytes, mult and shift need 8"
        raise FormatError(path, "option TSC2NSEC", option.offset, problem)
    mult = int.from_bytes(option.raw[:4], order)
    shift = int.from_bytes(option.raw[4:8], order)
    if shift > 63 or mult == 0:
        problem = f"mult {mult}, shift {shift}; mult must be above 0 and shift at most 63"
        raise FormatError(path, "option TSC2NSEC", option.offset, problem)
    return TscScale(mult, shift)


def _guest(path: str, option: Option, big: bool) -> dict[int, int]:
    # Name, trace id, count, then (vcpu, host thread) each: what trace-cmd knew of a guest's vCPUs.
    plain = PlainBytes(path, option.raw, f" (in the option at {option.offset:#x})")
    cursor = Cursor(plain, 0, len(option.raw), big)
    cursor.name("name of a guest")
    cursor.skip("trace id of a guest", 8)
    count = cursor.number("count of a guest's vCPUs", 4)
    found = {}
    for _ in range(count):
        vcpu = cursor.number("vCPU of a guest", 4)
        found[cursor.number("thread of a guest's vCPU", 4)] = vcpu
    return found


def _statistics(option: Option, instance: str, said: Said) -> str:
    # Returns the instance that this and the following statistics belong to: an option that holds
    # nothing but "Buffer: NAME" stands before those of an instance.
    text = _text(option)
    named = _BUFFER.match(text)
    if named is not None:
        return named[1]
    counts = {name.strip(): int(value) for name, value in _STATISTIC.findall(text)}
    cpu = re.match(r"CPU:?\s*(\d+)", text)
    if cpu is not None:
        said.cpu_statistics[instance, int(cpu[1])] = CpuStatistics(
            counts.get("overrun", 0),
            counts.get("commit overrun", 0),
            counts.get("dropped events", 0),
        )
    return instance
