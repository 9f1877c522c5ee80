"""What is in this recording, what is missing, and which questions can it answer?"""

from __future__ import annotations

from typing import Any

from analyzer.pipeline.contents.activity import attribution_of, host_activity_of
from analyzer.pipeline.contents.inference import inference_of, unruled_of
from analyzer.pipeline.contents.judged import judge_attribution
from analyzer.pipeline.contents.recorded import recorded_of
from analyzer.pipeline.meetings.exposure import feasible_of
from analyzer.replay import Part
from analyzer.store import Store

__all__ = ["info_of"]

# Off x86 no event shows an access of a register; probes on functions do (arch.arm64.probes).
PROBED = "kprobes on the PMU driver's and KVM's functions (arm64)"


def info_of(store: Store) -> dict[str, Any]:
    """Return `info --json` of design.md section 10."""
    manifest = store.manifest
    counts = store.read("event_count").to_pylist()
    reasons = store.read("exit_reason").to_pylist()
    vcpus = store.read("vcpu").to_pylist()
    losses = store.read("data_loss").to_pylist()
    feasible, because = feasible_of(store)
    return {
        "schema": "vpmu-analyzer/info/1",
        "recording": manifest["recording"],
        "events": {row["name"]: row["count"] for row in counts if row["count"] is not None},
        "not_recorded": [row["name"] for row in counts if row["count"] is None],
        "tables": manifest["tables"],
        "exits": {
            row["reason"] or "not recorded": {"count": row["count"], "ns": row["ns"]}
            for row in reasons
        },
        "vcpus": [
            {
                "tid": row["tid"],
                "tgid": row["tgid"],
                "vcpu_id": row["vcpu_id"],
                "vm": row["tgid"],
                **{k: row[k] for k in ("entries", "exits", "guest_ns", "cpus", "migrations")},
                **{k: row[k] for k in ("cancelled", "lost", "unpaired", "late_ns")},
                "inside_at_start": row["inside_at_start"],
                "inside_at_end": row["inside_at_end"],
            }
            for row in vcpus
        ],
        "data_loss": [
            {
                "from": r["ts"],
                "to": r["end"],
                "cpu": r["cpu"],
                "cause": r["cause"],
                "events": r["events"],
            }
            for r in losses
        ],
        "windows": store.read("window").to_pylist(),
        "recorded": recorded_of(store, Part()),
        "feasible": feasible,
        "because": because,
        "attribution": attribution_of(store),
        "host_perf": host_activity_of(store),
        "trouble": manifest["trouble"],
        "examples": manifest["examples"],
        "damage": manifest["damage"],
        "marks": manifest["marks"],
        "attribution_truth": judge_attribution(store),
        "host_events": store.read("host_event").to_pylist(),
        "inference": inference_of(store),
        "inference_without_rule": unruled_of(store),
        "answers": _answers(manifest, {row["name"] for row in counts if row["count"]}),
    }


def _answers(manifest: dict[str, Any], names: set[str]) -> list[dict[str, Any]]:
    marks = manifest["marks"]
    x86 = manifest["recording"]["arch"] == "x86"
    msr = bool({"read_msr", "write_msr", "rdpmc"} & names)
    reasons = bool(manifest["reasons"])

    def answer(question: str, missing: list[str], remedy: str) -> dict[str, Any]:
        return {
            "question": question,
            "answerable": not missing,
            "missing": missing,
            "remedy": remedy if missing else None,
        }

    def need(*wanted: str) -> list[str]:
        return [name for name in wanted if name not in names]

    x86_only = "read_msr, write_msr, rdpmc"
    registers = [] if msr or marks.get("calls_recorded") else [x86_only if x86 else PROBED]
    return [
        answer(
            "swaps per placement",
            need("kvm_entry", "kvm_exit", "sched_switch"),
            "record kvm:*, sched:sched_switch and syscalls:sys_enter_ioctl, sys_exit_ioctl",
        ),
        answer(
            "blind time",
            need("kvm_entry", "kvm_exit", "sched_switch"),
            "record kvm:*, sched:sched_switch and the interrupt events",
        ),
        answer(
            "exit reasons",
            [] if reasons else ["fields of kvm_exit"],
            "record the same load with trace-cmd or perf: this recorder drops x86's fields",
        ),
        answer(
            "recorded swaps",
            []
            if marks.get("swaps_recorded") or marks.get("filters_recorded")
            else registers or ["writes that mark KVM's load"],
            "record msr:* on a host with a mediated vPMU"
            if x86
            else "arm64 with VHE: probes on kvm_vcpu_pmu_restore_guest and the like",
        ),
        answer("conflicts", registers, "record msr:read_msr, write_msr and rdpmc"),
        answer("host perf activity", registers, "record msr:read_msr, write_msr and rdpmc"),
        answer(
            "guest PMU use",
            [] if marks.get("swaps_recorded") else registers or ["swaps of a mediated vPMU"],
            "record msr:* on a host with a mediated vPMU",
        ),
    ]
