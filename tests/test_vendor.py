"""Whose CPU is it, and are registers named after that vendor's catalogue?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analyzer.pipeline import IngestOptions, ingest
from analyzer.store import Store
from tests import perfetto_writer as w
from tests.swap_histories import History

INTEL, AMD = "GenuineIntel", "AuthenticAMD"
MSR_FIELDS = (("msr", w.UINT64), ("val", w.UINT64), ("failed", w.UINT64))
EXIT = w.Dense(65600, "kvm", "kvm_exit", (("exit_reason", w.UINT64), ("isa", w.UINT64)))
READ = w.Dense(65601, "msr", "read_msr", MSR_FIELDS)
RDPMC = w.Dense(65602, "msr", "rdpmc", MSR_FIELDS)
VMX, SVM = 1, 2
INTEL_CORE, AMD_CORE = 0x38F, 0xC0000301


def load(
    tmp_path: Path,
    *events: tuple[int, int, str, dict[str, Any]],
    told: str | None = None,
    machine: str = "x86_64",
) -> Store:
    path = tmp_path / "x.pftrace"
    bundle = w.bundle(0, list(events), dense=(EXIT, READ, RDPMC))
    path.write_bytes(w.trace([w.system_info(machine=machine), w.packet(ftrace=bundle)]))
    options = IngestOptions(vendor=told)
    return ingest(str(path), tmp_path / "x.vpmu", options, lambda done, total: None)


def left(isa: int) -> tuple[int, int, str, dict[str, Any]]:
    return (10, 7, "kvm_exit", {"exit_reason": 12, "isa": isa})


def access(
    op: str, address: int, failed: int = 0, ts: int = 20
) -> tuple[int, int, str, dict[str, Any]]:
    return (ts, 7, op, {"msr": address, "val": 1, "failed": failed})


# isa, then MSRs that did not fault, then what the user says; rdpmc's ECX is no MSR number.
@pytest.mark.parametrize(
    ("events", "told", "vendor", "contradictions"),
    [
        ([left(VMX), access("read_msr", AMD_CORE)], None, INTEL, 0),
        ([left(SVM)], INTEL, AMD, 1),
        ([left(VMX), left(SVM), access("read_msr", AMD_CORE)], None, AMD, 0),
        ([access("read_msr", INTEL_CORE)], AMD, INTEL, 1),
        ([access("read_msr", AMD_CORE)], AMD, AMD, 0),
        ([access("read_msr", INTEL_CORE, failed=1)], AMD, AMD, 0),
        ([access("rdpmc", INTEL_CORE)], None, None, 0),
        ([access("read_msr", 0x1D9)], None, None, 0),
    ],
)
def test_recording_tells_the_vendor_and_the_user_only_where_it_is_silent(
    tmp_path: Path, events: list[Any], told: str | None, vendor: str | None, contradictions: int
) -> None:
    store = load(tmp_path, *events, told=told)
    assert store.manifest["recording"]["vendor"] == vendor
    assert store.manifest["trouble"].get("vendor_contradicted", 0) == contradictions


def test_machine_of_another_family_is_its_own_vendor(tmp_path: Path) -> None:
    store = load(tmp_path, access("read_msr", 1), told=INTEL, machine="aarch64")
    assert store.manifest["recording"]["vendor"] == "arm64"
    assert store.manifest["trouble"]["vendor_contradicted"] == 1


# The row that proves the vendor comes last: all rows before it are named after it nevertheless.
@pytest.mark.parametrize(
    ("proof", "told", "names"),
    [
        (AMD_CORE, None, [("PMC", 3), ("AMD_UNCORE_PMC", 7), ("AMD_UNCORE_PMC", 12), (None, None)]),
        (INTEL_CORE, None, [("PMC", 3), ("PMC", 7), (None, None), ("FIXED_CTR", 1)]),
        # What both vendors have stays unnamed; what only one has is named by that.
        (0x1D9, None, [("PMC", 3), (None, None), ("AMD_UNCORE_PMC", 12), ("FIXED_CTR", 1)]),
        (0x1D9, AMD, [("PMC", 3), ("AMD_UNCORE_PMC", 7), ("AMD_UNCORE_PMC", 12), (None, None)]),
    ],
)
def test_rdpmc_is_named_by_the_vendor_that_a_later_row_proves(
    tmp_path: Path, proof: int, told: str | None, names: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two rows a row group, so that a rewritten table has several.
    monkeypatch.setattr("analyzer.store.writing.GROUP_ROWS", 2)
    reads = [access("rdpmc", ecx, ts=20 + ecx % 16) for ecx in (3, 7, 12)]
    fixed = access("rdpmc", 0x40000001, ts=40)
    store = load(tmp_path, *reads, fixed, access("read_msr", proof, ts=50), told=told)
    rows = store.read("pmu_access").to_pylist()
    assert [(row["register"], row["index"]) for row in rows[:4]] == names
    assert [row["ts"] for row in rows] == sorted(row["ts"] for row in rows)
    assert store.manifest["tables"]["pmu_access"] == 5
    assert not list((tmp_path / "x.vpmu").glob("*.old"))


# trace-cmd split and extract leave uname away. A machine that is named and unknown has no rules.
@pytest.mark.parametrize(("machine", "arch"), [(None, "x86"), ("sparc64", "sparc64")])
def test_a_machine_that_is_not_named_is_told_by_its_events(
    machine: str | None, arch: str, tmp_path: Path
) -> None:
    history = History("AuthenticAMD", 6)
    for _ in range(3):
        history.loop()
        history.tick(False)
    (tmp_path / "x.dat").write_bytes(history.raw(machine=machine))
    options = IngestOptions(emulated=True)
    store = ingest(str(tmp_path / "x.dat"), tmp_path / "x.vpmu", options, lambda done, total: None)
    assert store.manifest["recording"]["arch"] == arch
    assert store.manifest["recording"]["machine"] == machine
    assert store.manifest["trouble"].get("machine_not_named") == (1 if machine is None else None)
    assert store.manifest["marks"]["loop_events_exact"] is (machine is None)
