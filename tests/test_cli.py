"""Does the command line keep its promises: exit codes, one line for bad input, data on stdout?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import zstandard

from tests.conftest import ROOT
from tests.conftest import run_command as run

FIXTURE = ROOT / "fixtures" / "k73m-guestpmu.pftrace.zst"


def plain() -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(FIXTURE.read_bytes())


def test_whatif_on_a_recording_makes_a_store_that_later_commands_find(tmp_path: Path) -> None:
    first = run(tmp_path, "whatif", str(FIXTURE), "--boundary", "vcpu", "--json")
    assert first.returncode == 0, first.stderr
    answer = json.loads(first.stdout)
    assert answer["schema"] == "vpmu-analyzer/whatif/1"
    assert [p["name"] for p in answer["placements"]] == ["vcpu"]
    assert (tmp_path / "k73m-guestpmu.pftrace.vpmu" / "manifest.json").exists()
    second = run(tmp_path, "info", "--json")
    assert second.returncode == 0, second.stderr
    told = json.loads(second.stdout)
    assert told["schema"] == "vpmu-analyzer/info/1"
    assert {item["question"] for item in told["answers"]} >= {"exit reasons", "conflicts"}
    assert "not recorded" in told["exits"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("whatif", "--boundary", "nowhere", str(FIXTURE)), 2),
        (("whatif",), 2),
        (("ingest",), 2),
        (("ingest", "absent.pftrace"), 3),
        (("ingest", "text.txt"), 3),
        (("ingest", "empty.pftrace"), 3),
        (("ingest", str(FIXTURE), "-o", "text.txt"), 5),
    ],
)
def test_refusals_are_one_line_with_their_exit_code(
    tmp_path: Path, arguments: tuple[str, ...], code: int
) -> None:
    (tmp_path / "text.txt").write_text("hello\n")
    (tmp_path / "empty.pftrace").write_bytes(b"")
    done = run(tmp_path, *arguments)
    assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""
    assert not list(tmp_path.glob(".*vpmu*"))


@pytest.mark.parametrize("keep", [8, 64, 256, 0.25, 0.75])
def test_a_cut_file_is_never_a_success_and_never_a_traceback(tmp_path: Path, keep: float) -> None:
    whole = plain()
    size = int(keep) if keep >= 1 else int(len(whole) * keep)
    (tmp_path / "cut.pftrace").write_bytes(whole[:size])
    done = run(tmp_path, "ingest", "cut.pftrace")
    assert done.returncode == 3
    assert b"Traceback" not in done.stderr
    assert b"offset 0x" in done.stderr


def test_a_pipe_gives_the_same_tables_as_the_file(tmp_path: Path) -> None:
    assert run(tmp_path, "ingest", "-", stdin=plain()).returncode == 0
    assert run(tmp_path, "ingest", str(FIXTURE), "-o", "file.vpmu").returncode == 0
    counts = [
        json.loads((tmp_path / name / "manifest.json").read_text())["tables"]
        for name in ("stdin.vpmu", "file.vpmu")
    ]
    assert counts[0] == counts[1]


def test_recording_without_vcpus_lacks_what_the_question_needs(tmp_path: Path) -> None:
    # One packet that holds a system_info and nothing else: readable, but no vCPU in it.
    from perfetto.protos.perfetto.trace import perfetto_trace_pb2

    trace = perfetto_trace_pb2.Trace()
    trace.packet.add().system_info.utsname.machine = "x86_64"
    (tmp_path / "none.pftrace").write_bytes(trace.SerializeToString())
    done = run(tmp_path, "whatif", "none.pftrace")
    assert done.returncode == 4, done.stderr
