"""How do the three passes become tables? `feed` while reading, then `tables` once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from analyzer.arch import Family
from analyzer.errors import LimitError
from analyzer.readers.recording import NO_FLAGS, RecordingFacts
from analyzer.timeline import forward as f
from analyzer.timeline import kernels as k
from analyzer.timeline import truth
from analyzer.timeline.advance import advance, close
from analyzer.timeline.attribution.handlers import Handlers
from analyzer.timeline.attribution.probe_run import ProbeAttribution, probes_of
from analyzer.timeline.attribution.run import Attribution
from analyzer.timeline.inference.run import Inference, beside
from analyzer.timeline.marks import Code, KindCodes, codes_of_names
from analyzer.timeline.points import Kind
from analyzer.timeline.rows import timeline_rows
from analyzer.timeline.spool import Spool

__all__ = ["Timeline", "TimelineResult"]

Array = np.ndarray[Any, Any]
# Chosen by us, above any host: state and matrices grow with it, and a damaged file may claim more.
VCPU_LIMIT = 65536
ACCESS_EVENTS = ("read_msr", "write_msr", "rdpmc")


@dataclass(slots=True)
class TimelineResult:
    """What is known at the end: facts by name (manifest), and the rows of the small tables."""

    marks: dict[str, Any] = field(default_factory=dict)
    vcpus: list[dict[str, Any]] = field(default_factory=list)
    reasons: list[dict[str, Any]] = field(default_factory=list)
    agreement: dict[str, dict[str, int]] = field(default_factory=dict)
    inference: dict[str, dict[str, Any]] = field(default_factory=dict)


class Timeline:
    """Collects the stream of a recording, whose name refusals tell, and concludes from it."""

    def __init__(self, recording: str = "recording") -> None:
        self.recording = recording
        self.spool = Spool()
        self.result = TimelineResult()
        self.attribution: Attribution | None = None

    def feed(self, stream: dict[str, Array]) -> None:
        """Take the stream of one batch."""
        self.spool.append(stream)

    def tables(
        self, facts: RecordingFacts, family: Family | None, vendor: str | None
    ) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Yield (table, rows) of all timeline tables but vcpu, exit_reason and window.

        vendor: as CPUID names it; without one no swap of KVM's is looked for.
        Raises LimitError for more vCPUs than VCPU_LIMIT.
        """
        targets = {name: table for name, (_, table) in facts.event_counts.items()}
        kind_tables = [targets.get(name) for name in facts.event_names]
        codes = codes_of_names(facts.event_names, kind_tables, family)
        self.spool.frame(facts, codes)
        if self.spool.chunks == 0:
            return
        vcpus, found, slot, wait = self._learn(codes)
        gaps, unsure = self._look_ahead(codes, facts.reasons, family)
        rules = self._rules(found, gaps, family)
        # Exit reasons and interrupt flags leave no doubt about an inner loop.
        rules[f.R_EXACT] = unsure == 0
        self.result.marks["loop_events_exact"] = unsure == 0
        attribution = self.attribution = self._attribution(facts, codes, family, vendor, slot)
        handlers = Handlers(facts.event_names, facts.symbols)
        # Perfetto's reader names every event that there is, recorded or not.
        handlers.timers_recorded = "hrtimer_expire_entry" in facts.event_counts
        # No two episodes have one number: at most each event could begin an observed one.
        events = sum(count for count, _ in facts.event_counts.values())
        first = 0 if attribution is None else events
        inference = Inference(self.spool, facts, handlers, slot.copy(), first)
        if attribution is not None:
            yield from beside(inference, attribution, handlers)
            rules[f.R_RECORDED] = f.FILTERS if attribution.filters else attribution.mediated
            self.result.marks["swaps_recorded"] = attribution.mediated
            self.result.marks["calls_recorded"] = isinstance(attribution, ProbeAttribution)
            self.result.marks["filters_recorded"] = attribution.filters
            self.result.marks["handlers_named"] = handlers.named
            self.result.marks["unshown_grammars"] = attribution.unshown
        yield from self._advance(codes, rules, vcpus, slot, wait, facts, attribution, inference)
        self.result.inference = inference.results()

    def _attribution(
        self, facts: RecordingFacts, codes: KindCodes, family: Family | None,
        vendor: str | None, slot: Array,
    ) -> Attribution | None:  # fmt: skip
        if any(facts.event_counts.get(name, (0, None))[0] for name in ACCESS_EVENTS):
            return Attribution(self.spool, codes, vendor, slot.copy())
        probes = probes_of(facts, family)
        if probes.of_kind:
            return ProbeAttribution(self.spool, codes, slot.copy(), probes, facts)
        return None

    def _learn(self, codes: KindCodes) -> tuple[Array, Array, Array, Array]:
        tids, cpus = self.spool.top_tid + 2, self.spool.top_cpu + 1
        room = min(1024, VCPU_LIMIT)
        while True:
            slot, born = np.full(tids, -1, np.int32), np.zeros(tids, np.int64)
            open_tid, open_host = np.full(cpus, -2, np.int64), np.zeros(cpus, np.int64)
            vcpus, found = np.zeros((k.VCPU_ROWS, room), np.int64), np.zeros(10, np.int64)
            at, whole = 0, True
            for number in range(self.spool.chunks):
                c = self.spool.chunk(number, codes)
                whole = k.learn(
                    at, c.ts, c.cpu, c.tid, c.code, c.first, c.second, slot, born, open_tid,
                    open_host, vcpus, found,
                )  # fmt: skip
                if not whole:
                    break
                at += c.ts.size
            if whole:
                break
            if room >= VCPU_LIMIT:
                problem = f"at least {room + 1} threads run one; allowed are {VCPU_LIMIT}"
                raise LimitError(self.recording, "table vcpu", None, problem)
            room = min(8 * room, VCPU_LIMIT)
        vcpus = np.ascontiguousarray(vcpus[:, : int(found[k.F_VCPUS])])
        first, wait = np.full(tids, -1, np.int32), np.full(tids, -1, np.int32)
        for v in range(vcpus.shape[1] - 1, -1, -1):
            t = int(vcpus[k.V_TID, v]) + 1
            if vcpus[k.V_BORN, v] == 0:
                first[t] = v
            else:
                wait[t] = v
        return vcpus, found, first, wait

    def _look_ahead(
        self, codes: KindCodes, reasons: list[str], family: Family | None
    ) -> tuple[Array, int]:
        # Without a rule of the family any exit may be followed by a re-entry, as an unknown one.
        known = family.reentry_reasons if family is not None else frozenset()
        fast = np.array([not known or reason in known for reason in reasons] + [True], np.uint8)
        tids, cpus = self.spool.top_tid + 2, self.spool.top_cpu + 1
        join, joined = np.full(cpus, -2, np.int64), np.full(cpus, -2, np.int64)
        next_own = np.full((cpus, 2), -2, np.int64)
        next_edge = np.zeros(tids, np.int8)
        gaps, unsure = np.zeros(2, np.int64), 0
        for number in range(self.spool.chunks - 1, -1, -1):
            c = self.spool.chunk(number, codes)
            tags = np.empty(c.ts.size, np.uint8)
            k.look_ahead(
                c.cpu, c.tid, c.code, c.property, c.flags, c.first, c.second, fast, join, joined,
                next_own, next_edge, tags, gaps,
            )  # fmt: skip
            self.spool.keep_tags(number, tags)
            exits = c.code == Code.EXIT
            unsure += int(np.count_nonzero(exits & ((c.first < 0) | (c.flags == NO_FLAGS))))
        return gaps, unsure + (not known)

    def _rules(self, found: Array, gaps: Array, family: Family | None) -> Array:
        rules = np.zeros(8, np.int64)
        late = family is None or family.exit_is_late == "always" or found[k.F_LATE] > 0
        rules[f.R_LATE] = late
        rules[f.R_IOCTL] = found[k.F_IOCTL] > 0
        rules[f.R_FPU] = found[k.F_FPU] > 0
        rules[f.R_TIMER] = found[k.F_TIMER] > 0
        rules[f.R_USER_EXIT] = found[k.F_USER_EXIT] > 0
        # The DEBUGCTL read marks a new inner loop since 6.1 and vcpu_load before (facts/x86.md
        # 3.2). It is believed where it stands in every gap that some other event proves to be one
        # between two inner loops; one such gap without it, and it is not.
        rules[f.R_MARKS] = found[k.F_LOOP_MARKS] > 0 and gaps[0] > 0 and gaps[1] == 0
        self.result.marks = {
            "kvm_exit_is_late": bool(late),
            "late_exits_seen": int(found[k.F_LATE]),
            "kvm_run_ioctl": bool(rules[f.R_IOCTL]),
            "kvm_fpu": bool(rules[f.R_FPU]),
            "kvm_timer": bool(rules[f.R_TIMER]),
            "kvm_userspace_exit": bool(rules[f.R_USER_EXIT]),
            "loop_marks": int(found[k.F_LOOP_MARKS]),
            "loop_marks_trusted": bool(rules[f.R_MARKS]),
            "loop_gaps_with_mark": int(gaps[0]),
            "loop_gaps_without_mark": int(gaps[1]),
            "swaps_recorded": False,
            "hidden_reentries": bool(family is not None and family.hidden_reentries),
        }
        return rules

    def _advance(
        self, codes: KindCodes, rules: Array, vcpus: Array, slot: Array,
        wait: Array, facts: RecordingFacts, attribution: Attribution | None, inference: Inference,
    ) -> Iterator[tuple[str, pa.RecordBatch]]:  # fmt: skip
        count, cpus = vcpus.shape[1], self.spool.top_cpu + 1
        state = np.zeros((count, f.VCPU_COLUMNS), np.int64)
        begin = min((w.ts for w in facts.windows), default=0)
        end = max((w.end for w in facts.windows), default=0)
        state[:, f.S_ON], state[:, f.S_LAST_CPU] = -1, -1
        state[:, f.S_MODE], state[:, f.S_MODE_TS] = f.M_UNKNOWN, begin
        state[:, f.S_MODE_CPU] = state[:, f.S_PMU] = -1
        state[:, f.S_ENTRY_TS], state[:, f.S_EXIT_TS] = f.NOT_KNOWN, f.NOT_KNOWN
        first = vcpus[k.V_FIRST]
        inside = ~np.isin(first, (Code.IOCTL_IN,)) & ~(
            (first == Code.FPU) & (rules[f.R_IOCTL] == 0)
        )
        state[:, f.S_OUTER] = inside
        state[:, f.S_INNER] = inside & np.isin(first, (Code.ENTRY, Code.EXIT, Code.WAKEUP_IN_KVM))
        state[:, f.S_STARTED] = inside
        cpu_state = np.zeros((cpus, f.CPU_COLUMNS), np.int64)
        cpu_state[:, f.C_VCPU] = -1
        since = np.zeros((count, truth.SINCE_COLUMNS), np.int64)
        since[:, truth.ON] = truth.UNCLEAR
        marks, episodes = np.zeros(0, np.uint16), np.zeros(0, np.int32)
        seen = np.zeros((count, cpus), np.uint8)
        reasons = np.zeros((len(facts.reasons) + 1, 2), np.int64)
        at = 0
        out = np.empty((6, 0, 7), np.int64)
        for number in range(self.spool.chunks):
            c = self.spool.chunk(number, codes)
            # At most five rows of one kind an event, and one a vCPU for each of our own events; and
            # all that truth has of a vCPU, where a window ends and an event of its was since.
            own = self.spool.own_events(number)
            room = 5 * c.ts.size + (count + 8) * (own + 1)
            room += truth.MOST_ROWS * (own + min(count, c.ts.size) + (own > 0) * c.ts.size)
            if out.shape[1] < room:
                out = np.empty((6, room, 7), np.int64)
            filled = np.zeros(6, np.int64)
            tags = self.spool.tags(number)
            if attribution is not None:
                marks, episodes = attribution.marks(number)
                yield from attribution.rows(c, marks, episodes)
            elif inference.is_applied:
                inferred, marks, numbers = inference.feed(c)
                episodes = numbers.astype(np.int32)
                if len(inferred):
                    yield "host_episode", inference.batch(inferred)
            advance(
                at, c.ts, c.cpu, c.tid, c.code, c.property, c.first, c.second, tags, marks,
                episodes, rules, slot, wait, vcpus, state, cpu_state, since, seen, reasons, out,
                filled,
            )  # fmt: skip
            at += c.ts.size
            if attribution is None:
                _name_inferred(out, filled)
            yield from timeline_rows(out, filled, rules, facts)
        if attribution is None:
            rest = inference.finish()
            if len(rest):
                yield "host_episode", inference.batch(rest)
        filled = np.zeros(6, np.int64)
        if out.shape[1] < truth.MOST_ROWS * (count + 1):
            out = np.empty((6, truth.MOST_ROWS * (count + 1), 7), np.int64)
        close(since, state, end, out, filled)
        for v in range(count):
            state[v, f.S_ON] = -1
            if state[v, f.S_MODE_TS] < end:
                mode, cpu = state[v, f.S_MODE], state[v, f.S_MODE_CPU]
                row = (state[v, f.S_MODE_TS], end, cpu, v, mode, 0, 0)
                out[f.O_MODE, filled[f.O_MODE]] = row
                filled[f.O_MODE] += 1
        yield from timeline_rows(out, filled, rules, facts)
        counts = (
            since[:, truth.COUNTS : truth.PENDING]
            .reshape(count, truth.LEVELS, truth.COUNTED)
            .sum(axis=0)
        )
        if rules[f.R_RECORDED]:
            self.result.agreement = {
                level: dict(zip(truth.COUNTED_NAMES, counts[bit].tolist(), strict=True))
                for bit, level in enumerate(truth.LEVEL_NAMES)
            }
        self._vcpus(vcpus, state, seen, inside, facts)
        self.result.reasons = [
            {"number": n, "reason": name, "count": int(reasons[n, 0]), "ns": int(reasons[n, 1])}
            for n, name in enumerate([None, *facts.reasons])
            if reasons[n, 0]
        ]

    def _vcpus(
        self, vcpus: Array, state: Array, seen: Array, inside: Array, facts: RecordingFacts
    ) -> None:
        threads = {thread.tid: thread for thread in facts.threads}
        columns = {
            "entries": f.S_ENTRIES, "exits": f.S_EXITS, "cancelled": f.S_CANCELLED,
            "lost": f.S_LOST, "unpaired": f.S_UNPAIRED, "implied": f.S_IMPLIED,
            "guest_ns": f.S_GUEST, "late_ns": f.S_LATE, "on_cpu_ns": f.S_ON_CPU,
            "migrations": f.S_MIGRATIONS,
        }  # fmt: skip
        for v in range(vcpus.shape[1]):
            tid = int(vcpus[k.V_TID, v])
            thread = threads.get(tid)
            row: dict[str, Any] = {
                "vcpu": v,
                "tid": tid,
                "tgid": thread.tgid if thread else None,
                "name": thread.name if thread else None,
                "vcpu_id": facts.vcpu_ids.get(tid),
                "cpus": int(seen[v].sum()),
                "inside_at_start": bool(inside[v]),
                "inside_at_end": bool(vcpus[k.V_INSIDE, v]),
            }
            row.update({name: int(state[v, at]) for name, at in columns.items()})
            self.result.vcpus.append(row)

    def close(self) -> None:
        """Remove what was put aside."""
        self.spool.close()
        if self.attribution is not None:
            self.attribution.close()


def _name_inferred(out: Array, filled: Array) -> None:
    # Without attribution every episode that got a point is inferred.
    kinds = out[f.O_POINT, : filled[f.O_POINT], 3]
    kinds[kinds == Kind.EPISODE] = Kind.INFERRED
