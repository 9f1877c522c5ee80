"""Does a pointer get the name of its own read tick, and the stream one number a name?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

from analyzer.pipeline import IngestOptions, ingest
from analyzer.readers.perfetto.descriptor import DESCRIPTOR
from analyzer.readers.recording import ABSENT, ReadOptions, Recording
from analyzer.trouble import Trouble
from tests import perfetto_writer as w

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "E-arm64-k72-lostevents.pftrace.zst"
CLEARED = 1


def expire(ts: int, function: int) -> tuple[int, int, str, dict[str, Any]]:
    return (ts, 7, "hrtimer_expire_entry", {"hrtimer": 99, "function": function, "now": ts})


def piece(
    cpu: int, *events: Any, symbols: dict[int, str] | None = None, flags: int = 0, **options: Any
) -> bytes:
    interned = pb.InternedData()
    for number, name in (symbols or {}).items():
        interned.kernel_symbols.add(iid=number, str=name.encode())
    given = {"interned_data": interned} if symbols else {}
    if flags:
        given["sequence_flags"] = flags
    return w.packet(ftrace=w.bundle(cpu, list(events)), sequence=2, **given, **options)


def opened(tmp_path: Path, *packets: bytes) -> Recording:
    path = tmp_path / "x.pftrace"
    path.write_bytes(w.trace([w.system_info(), *packets]))
    return DESCRIPTOR.open(str(path), ReadOptions(), Trouble())


def read(tmp_path: Path, *packets: bytes) -> tuple[list[Any], list[str | None]]:
    """Return the column function_name, and the name of each number in the stream."""
    recording = opened(tmp_path, *packets)
    batches = list(recording.batches(lambda done, total: None))
    recording.close()
    names = [n for b in batches for n in b.tables["timer"].column("function_name").to_pylist()]
    numbers = [int(n) for b in batches for n in b.stream["first"]]
    symbols = recording.facts.symbols
    assert all(number in symbols or number == ABSENT for number in numbers)
    return names, [symbols.get(number) for number in numbers]


# The second tick begins at 1 again; a number of a tick holds for its later bundles of any CPU.
def test_number_means_what_its_own_tick_says(tmp_path: Path) -> None:
    names, in_stream = read(
        tmp_path,
        piece(0, expire(10, 1), expire(20, 2), symbols={1: "tick", 2: "wake"}, flags=CLEARED),
        piece(1, expire(15, 2), expire(25, 3), symbols={3: "poll"}),
        piece(0, expire(30, 1), expire(40, 2), symbols={1: "wake", 2: "tick"}, flags=CLEARED),
        piece(1, expire(35, 2), expire(45, 9)),
    )
    assert names == ["tick", "wake", "wake", "poll", "wake", "tick", "tick", None]
    assert in_stream == names


def test_behind_missing_packets_only_new_names_count(tmp_path: Path) -> None:
    names, in_stream = read(
        tmp_path,
        piece(0, expire(10, 1), symbols={1: "tick"}, flags=CLEARED),
        piece(0, expire(20, 1), expire(30, 2), symbols={2: "wake"}, dropped=1),
    )
    assert names == ["tick", None, "wake"]
    assert in_stream == names


def test_without_symbols_the_stream_keeps_what_was_recorded(tmp_path: Path) -> None:
    recording = opened(tmp_path, piece(0, expire(10, 5), expire(20, 6)))
    (batch,) = recording.batches(lambda done, total: None)
    recording.close()
    assert recording.facts.symbols == {}
    assert batch.stream["first"].tolist() == [5, 6]
    assert batch.tables["timer"].column("function_name").null_count == 2


# The recording has two ticks, in which tick_nohz_handler is 2 and then 4.
def test_recorded_tick_has_its_name_in_both_of_its_numbers(tmp_path: Path) -> None:
    store = ingest(str(FIXTURE), tmp_path / "x.vpmu", IngestOptions(), lambda done, total: None)
    timers = store.read("timer").to_pylist()
    of_tick = {row["function"] for row in timers if row["function_name"] == "tick_nohz_handler"}
    assert of_tick == {2, 4}
    expiries = [row for row in timers if row["phase"] == "expire_entry"]
    assert len(expiries) == 175
    assert all(row["function_name"] for row in expiries)
    calls = {row["func_name"] for row in store.read("function_call").to_pylist()}
    assert "remote_function" in calls
