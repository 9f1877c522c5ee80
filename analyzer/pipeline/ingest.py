"""How does a recording become a store? Read, concluded from, written aside, renamed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analyzer.arch import Family, family_of_events, family_of_machine
from analyzer.pipeline.vendor import VendorEvidence
from analyzer.readers.recording import ReadOptions, RecordingFacts
from analyzer.readers.registry import find_reader
from analyzer.readers.unwrap import plain_name, seekable_path
from analyzer.store import Store, StoreWriter, open_store, remember_store
from analyzer.store.layout import DATA_VERSION, SCHEMA, SUFFIX
from analyzer.timeline import Timeline
from analyzer.trouble import Trouble

__all__ = ["IngestOptions", "ingest", "store_path"]


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """What the user says of a recording; None: nothing. The vendor only counts where the
    recording itself does not show one."""

    emulated: bool | None = None
    vendor: str | None = None
    machine: int | None = None
    # Rows of host_event: what ran beside the recorder, as pipeline.stated reads it.
    host_events: tuple[dict[str, Any], ...] = ()


def store_path(recording: str) -> Path:
    """Return the default store of a recording: its name less the wrapper, plus .vpmu, here."""
    return Path(plain_name(recording) + SUFFIX)


def ingest(
    recording: str,
    target: Path | None,
    options: IngestOptions,
    progress: Callable[[int, int], None],
) -> Store:
    """Return the store made of a recording.

    Damage inside is kept in the manifest (`damage`, one line each) with everything whole before
    it. Raises InputError for what cannot be read at all and OutputError where nothing can be
    written; then no store is left.
    """
    path = target or store_path(recording)
    trouble = Trouble()
    damage: list[str] = []
    with seekable_path(recording, damage.append) as plain:
        reader = find_reader(plain, recording)
        opened = reader.open(plain, ReadOptions(options.machine), trouble)
        writer = StoreWriter(path)
        timeline = Timeline(recording)
        try:
            evidence = VendorEvidence()
            for batch in opened.batches(progress):
                for name, rows in batch.tables.items():
                    writer.append(name, rows)
                evidence.take(batch.tables)
                timeline.feed(batch.stream)
            facts = opened.facts
            facts.host_events = [*facts.host_events, *options.host_events]
            facts.damage = [line.replace(plain, recording) for line in [*damage, *facts.damage]]
            family = _family(facts, trouble)
            vendor = evidence.vendor(family, options.vendor, trouble)
            for name, rows in timeline.tables(facts, family, vendor):
                writer.append(name, rows)
            evidence.correct_names(vendor, writer)
            _small_tables(writer, facts, timeline)
            writer.finish(_manifest(recording, options, facts, (family, vendor), trouble, timeline))
        except BaseException:
            writer.abandon()
            raise
        finally:
            opened.close()
            timeline.close()
    remember_store(path)
    return open_store(path)


def _family(facts: RecordingFacts, trouble: Trouble) -> Family | None:
    # A machine that is named and unknown to us has no rules, whatever its events are called.
    if facts.machine is not None:
        return family_of_machine(facts.machine)
    family = family_of_events({name for name, (count, _) in facts.event_counts.items() if count})
    if family is not None:
        trouble.add("machine_not_named", 1, family.name)
    return family


def _small_tables(writer: StoreWriter, facts: RecordingFacts, timeline: Timeline) -> None:
    asked = facts.asked_events
    counts = [
        {"name": name, "count": count, "table": table, "asked": _is_asked(name, asked)}
        for name, (count, table) in sorted(facts.event_counts.items())
    ]
    counts += [
        {"name": name, "count": None, "table": None, "asked": True} for name in facts.failed_events
    ]
    writer.write("event_count", counts)
    writer.write(
        "data_loss",
        [
            {"ts": x.ts, "end": x.end, "cpu": x.cpu, "cause": x.cause, "events": x.events}
            for x in facts.losses
        ],
    )
    writer.write(
        "thread",
        [
            {"tid": t.tid, "tgid": t.tgid, "name": t.name, "cmdline": t.cmdline}
            for t in facts.threads
        ],
    )
    writer.write(
        "window",
        [{"cpu": w.cpu, "ts": w.ts, "end": w.end, "events": w.events} for w in facts.windows],
    )
    writer.write("host_event", facts.host_events)
    writer.write("vcpu", timeline.result.vcpus)
    writer.write("exit_reason", timeline.result.reasons)


def _is_asked(name: str, asked: list[str] | None) -> bool | None:
    if asked is None:
        return None
    return any(item.split("/")[-1] == name for item in asked)


def _union_ns(spans: list[tuple[int, int]]) -> int:
    total, reached = 0, None
    for begin, end in sorted(spans):
        start = begin if reached is None else max(begin, reached)
        total += max(0, end - start)
        reached = end if reached is None else max(reached, end)
    return total


def _manifest(
    recording: str,
    options: IngestOptions,
    facts: RecordingFacts,
    whose: tuple[Family | None, str | None],
    trouble: Trouble,
    timeline: Timeline,
) -> dict[str, Any]:
    windows = facts.windows
    latest, earliest = (
        max((w.ts for w in windows), default=0),
        min((w.end for w in windows), default=0),
    )
    family, vendor = whose
    return {
        "schema": SCHEMA,
        "data_version": DATA_VERSION,
        "recording": {
            "path": os.path.basename(recording),
            "format": facts.format,
            "arch": family.name if family else facts.machine,
            "machine": facts.machine,
            "vendor": vendor,
            "kernel": facts.kernel,
            "recorder": facts.recorder,
            "emulated": options.emulated,
            "clock": facts.clock,
            "realtime_offset_ns": facts.realtime_offset_ns,
            "begin_ns": min((w.ts for w in windows), default=0),
            "duration_ns": _union_ns([(w.ts, w.end) for w in windows]),
            "comparable_ns": max(0, earliest - latest),
            "cpus": len(windows),
            "vcpus": len(timeline.result.vcpus),
            "events": sum(count for count, _ in facts.event_counts.values()),
            "lost_events": facts.lost_events,
        },
        "marks": timeline.result.marks,
        "agreement": timeline.result.agreement,
        "inference": timeline.result.inference,
        "reasons": facts.reasons,
        "failed_events": facts.failed_events,
        "trouble": trouble.counts,
        "examples": trouble.examples,
        "damage": facts.damage,
    }
