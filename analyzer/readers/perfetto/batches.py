"""How are all CPUs' bundles put in order of time, a piece at a time? The second pass.

Bundles are taken in order of their first event until a piece is full; every row earlier than the
next bundle's first event can then be placed, the rest is carried over. Memory is bounded by the
piece and by one bundle a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from analyzer.readers.columns import TextPool
from analyzer.readers.event_map import SPAN, target_of
from analyzer.readers.merge import merge_runs, straighten
from analyzer.readers.perfetto import layout
from analyzer.readers.perfetto.assemble import Rows
from analyzer.readers.perfetto.index import (
    X_CONTAINER,
    X_LENGTH,
    X_OFFSET,
    X_SYMBOLS,
    Bundles,
    read_bytes,
    read_container,
)
from analyzer.readers.perfetto.names import (
    EventKind,
    EventKinds,
    bundle_numbers,
    compact_columns,
    legacy_numbers,
    message,
)
from analyzer.readers.perfetto.payload import payload_fields
from analyzer.readers.perfetto.walk import walk_compact, walk_events
from analyzer.trouble import Trouble

Array = np.ndarray[Any, Any]
# A piece of this many bytes holds about 150,000 events: large enough that what is done once a
# piece does not count, small enough for caches and for the memory that we promise.
PIECE = 4 * 1024 * 1024
CONTAINERS_KEPT = 8
PROBE_PHASES = {1: 0, 2: 1, 3: 2}  # KprobeEvent.KprobeType: begin, end, instant
RETURNS = PROBE_PHASES[2]
# EventKinds numbers compact switches 0 and compact wake-ups 1; nothing else has these kinds.
LAST_COMPACT_KIND = 1
EVERYTHING = np.int64(2**63 - 1)


class Pieces:
    """Yields decoded rows in pieces, each with the order in which its rows happened."""

    def __init__(
        self,
        fd: int,
        bundles: Bundles,
        chosen: Array,
        clock_offsets: Array,
        kinds: EventKinds,
        text: TextPool,
        trouble: Trouble,
        path: str,
    ) -> None:
        """`chosen`: rows of `bundles` in order of first event; `clock_offsets`: ns by row."""
        self.fd, self.bundles, self.chosen, self.offsets = fd, bundles, chosen, clock_offsets
        self.kinds, self.text, self.trouble, self.path = kinds, text, trouble, path
        self.numbers = bundle_numbers()
        self.columns = compact_columns()
        self.legacy_name, _ = legacy_numbers()
        probe = message("KprobeEvent")
        self.probe_numbers = [probe.fields_by_name[name].number for name in ("name", "type")]
        self.named: dict[tuple[str, str], int] = {}
        self.containers: dict[int, bytes] = {}
        self.damage: list[str] = []
        # The last time met in each bundle, by row of `bundles`; 0 for one without events.
        self.last_of_bundle = np.zeros(len(bundles.rows), np.int64)
        self.bytes_done = 0

    def __iter__(self) -> Iterator[tuple[Rows, Array, Array]]:
        """Yield (rows, order int64[n], bundle int32[rows]: row of `bundles` of each row)."""
        carried: tuple[Rows, Array, Array, Array] | None = None
        at = 0
        while at < self.chosen.size or carried is not None:
            upto, room = at, 0
            while upto < self.chosen.size and (room < PIECE or upto == at):
                room += int(self.bundles.rows[self.chosen[upto], X_LENGTH])
                upto += 1
            rows, bundle, heads, tails = self._decode(self.chosen[at:upto], carried)
            self.bytes_done += room
            at = upto
            horizon = EVERYTHING
            if at < self.chosen.size:
                nearest = self.chosen[at]
                horizon = self.bundles.rows[nearest, layout.B_FIRST] + self.offsets[nearest]
            order = np.empty(rows.ts.size, np.int64)
            heap = np.empty_like(heads)
            order = order[: merge_runs(rows.ts, heads, tails, horizon, heap, order)]
            yield rows, order, bundle
            carried = (rows, bundle, heads, tails) if at < self.chosen.size else None

    def _bytes(self, chosen: Array, kept: Array) -> tuple[Array, Array]:
        # Returns kept bytes and all bundles' in one buffer, and each bundle's length.
        lengths = self.bundles.rows[chosen, X_LENGTH]
        buf = np.empty(kept.size + int(lengths.sum()), np.uint8)
        buf[: kept.size] = kept
        at = kept.size
        for row in self.bundles.rows[chosen]:
            container = int(row[X_CONTAINER])
            offset, length = int(row[X_OFFSET]), int(row[X_LENGTH])
            if container < 0:
                read_bytes(self.fd, offset, length, buf[at : at + length])
                at += length
                continue
            if container not in self.containers:
                if len(self.containers) >= CONTAINERS_KEPT:
                    self.containers.pop(next(iter(self.containers)))
                self.containers[container] = read_container(
                    self.fd, self.bundles.containers[container]
                )
            plain = self.containers[container][offset : offset + length]
            buf[at : at + length] = np.frombuffer(plain, np.uint8)
            at += length
        return buf, lengths

    def _decode(
        self, chosen: Array, carried: tuple[Rows, Array, Array, Array] | None
    ) -> tuple[Rows, Array, Array, Array]:
        index = self.bundles.rows[chosen]
        events, switches, wakings = (
            index[:, column] for column in (layout.B_EVENTS, layout.B_SWITCHES, layout.B_WAKINGS)
        )
        keep = _leftover(carried)
        kept = keep.buf if keep is not None else np.zeros(0, np.uint8)
        buf, lengths = self._bytes(chosen, kept)
        ends = kept.size + np.cumsum(lengths)
        begins = ends - lengths
        count = int(events.sum())
        event_rows = np.concatenate((np.zeros(1, np.int64), np.cumsum(events)))
        switch_rows = np.concatenate((np.zeros(1, np.int64), np.cumsum(switches)))
        waking_rows = np.concatenate((np.zeros(1, np.int64), np.cumsum(wakings)))
        n_switch, n_waking = int(switch_rows[-1]), int(waking_rows[-1])
        # Events, then compact switches, then compact wake-ups.
        total = count + n_switch + n_waking
        ts, off = np.empty(total, np.int64), np.empty(total, np.int64)
        tid, kind, size = (np.empty(total, np.int32) for _ in range(3))
        bad = np.zeros(chosen.size, np.int64)
        walk_events(
            buf, begins, ends, event_rows, self.numbers, self.kinds.lut, ts[:count], tid[:count],
            kind[:count], off[:count], size[:count], bad,
        )  # fmt: skip
        self._report(bad, begins, index)
        compact, comm = self._compact(
            buf, begins + index[:, layout.B_COMPACT], ends, switch_rows, waking_rows
        )
        ts[count:], off[count:] = compact[0], np.arange(n_switch + n_waking)
        tid[count:], size[count:] = -1, 0
        kind[count : count + n_switch] = self.kinds.compact_switch
        kind[count + n_switch :] = self.kinds.compact_waking
        rows_of = np.concatenate((events, switches, wakings))

        def spread(values: Array, kind: Any) -> Array:
            # A value of each bundle for every row of it.
            return np.repeat(np.tile(values.astype(kind), 3), rows_of)

        if self.offsets[chosen].any():
            ts += spread(self.offsets[chosen], np.int64)
        new = Rows(
            buf=buf,
            ts=ts,
            cpu=spread(index[:, layout.B_CPU], np.int32),
            tid=tid,
            kind=kind,
            off=off,
            size=size,
            origin=np.full(total, 3, np.int8),
            maps=spread(index[:, X_SYMBOLS], np.int32),
            compact=compact,
            comm=comm,
        )
        # The rows of damaged bundles that were not decoded go to no run: runs end before them.
        whole = np.where(bad > 0, 0, events)
        for b in np.flatnonzero(bad):
            span = new.kind[event_rows[b] : event_rows[b + 1]]
            whole[b] = np.count_nonzero(span != -1)
        self._name_rows(new)
        runs = [
            (int(index[b, layout.B_CPU]), b, kind_of_run, int(first), int(first + n))
            for kind_of_run, starts, counts in (
                # A wake-up at the same time as an event is nested in it: the event came first.
                (0, event_rows, whole),
                (1, count + n_switch + waking_rows, wakings),
                (2, count + switch_rows, switches),
            )
            for b, (first, n) in enumerate(zip(starts[:-1], counts, strict=True))
            if n > 0
        ]
        runs.sort()
        heads = np.array([run[3] for run in runs], np.int64)
        tails = np.array([run[4] for run in runs], np.int64)
        self.trouble.add("events_out_of_order", int(straighten(new.ts, heads, tails)))
        for run in runs:
            row = int(chosen[run[1]])
            self.last_of_bundle[row] = max(self.last_of_bundle[row], new.ts[run[4] - 1])
        bundle = spread(chosen, np.int32)
        if keep is None:
            return new, bundle, heads, tails
        return _join(keep, new, bundle, heads, tails)

    def _compact(
        self, buf: Array, begins: Array, ends: Array, switch_rows: Array, waking_rows: Array
    ) -> tuple[Array, Array]:
        # Returns compact int64[6, switches + wakings] and the names' numbers int32[same].
        n_switch, n_waking = int(switch_rows[-1]), int(waking_rows[-1])
        switches, wakings = np.empty((5, n_switch), np.int64), np.empty((6, n_waking), np.int64)
        name_rows = np.zeros(begins.size + 1, np.int64)
        room = 64 * begins.size
        while True:
            found = np.empty((2, room), np.int64)
            needed = walk_compact(
                buf, begins, ends, switch_rows, waking_rows, self.numbers, self.columns,
                switches, wakings, found, name_rows,
            )  # fmt: skip
            if needed <= room:
                break
            room = int(needed)
        codes = self.text.codes_of_bytes(buf, found[0, :needed], found[1, :needed])
        comm = np.full(n_switch + n_waking, -1, np.int32)
        for rows, index, start in (
            (switch_rows, switches[4], 0),
            (waking_rows, wakings[4], n_switch),
        ):
            owner = np.repeat(np.arange(begins.size), np.diff(rows))
            at = name_rows[owner] + index
            good = (index >= 0) & (at < name_rows[owner + 1])
            comm[start : start + index.size][good] = codes[at[good]]
        padded = np.full((6, n_switch), -(2**63), np.int64)
        padded[:5] = switches
        return np.concatenate((padded, wakings), axis=1), comm

    def _report(self, bad: Array, begins: Array, index: Array) -> None:
        for b in np.flatnonzero(bad):
            inside = int(bad[b]) - 1 - int(begins[b])
            line = (
                f"{self.path}: FtraceEvent in the bundle at offset {int(index[b, X_OFFSET]):#x}: "
                f"byte {inside} of {int(index[b, X_LENGTH])}: its length goes past the bundle's end"
            )
            self.trouble.add("damaged_event", 1, line)
            self.damage.append(line)

    def _name_rows(self, rows: Rows) -> None:
        # Gives probes, legacy generic and unknown events a kind by name; in place.
        unknown = np.flatnonzero(rows.kind < -1)
        for value in np.unique(rows.kind[unknown]).tolist():
            number = -2 - value
            at = unknown[rows.kind[unknown] == value]
            dense = number >= 65536
            self.trouble.add(
                "descriptor_missing" if dense else "unknown_event_type", at.size, f"field {number}"
            )
            kind = self._named(("unknown", str(number))) if number == 0 else self.kinds.lut[number]
            rows.kind[at] = kind if kind >= 0 else self.kinds.add_unknown(number)
        for special, form in ((self.kinds.kprobe, "kprobe"), (self.kinds.legacy, "legacy")):
            at = np.flatnonzero(rows.kind == special)
            if at.size == 0:
                continue
            slots = np.full((1, 64), -1, np.int16)
            number = self.probe_numbers[0] if form == "kprobe" else self.legacy_name
            slots[0, number] = 0
            if form == "kprobe":
                slots[0, self.probe_numbers[1]] = 1
            values, sizes = np.zeros((2, at.size), np.int64), np.empty((2, at.size), np.int32)
            group = np.zeros(at.size, np.int32)
            payload_fields(rows.buf, rows.off[at], rows.size[at], group, slots, values, sizes)
            names = TextPool()
            codes = names.codes_of_bytes(rows.buf, values[0], sizes[0].astype(np.int64) - 1)
            if form == "kprobe":
                phases = np.array([PROBE_PHASES.get(n, -1) for n in range(4)], np.int8)
                rows.origin[at] = np.where(sizes[1] >= 0, phases[np.clip(values[1], 0, 3)], -1)
                # A probe and one at the same function's return may share a name, but are two
                # kinds: only the first says that the function was called.
                returns = rows.origin[at] == RETURNS
                self._name_each("kretprobe", rows, at[returns], codes[returns], names.names)
                at, codes = at[~returns], codes[~returns]
            self._name_each(form, rows, at, codes, names.names)

    def _name_each(self, form: str, rows: Rows, at: Array, codes: Array, names: list[str]) -> None:
        # codes: numbers in names, -1 for none, which is the last of `numbers`.
        numbers = np.zeros(len(names) + 1, np.int32)
        for code in np.unique(codes).tolist():
            numbers[code] = self._named((form, names[code] if code >= 0 else "(no name)"))
        rows.kind[at] = numbers[codes]

    def _named(self, key: tuple[str, str]) -> int:
        found = self.named.get(key)
        if found is None:
            form, name = key
            if form == "unknown":
                found = self.kinds.add_unknown(int(name))
            else:
                target = SPAN if form in ("kprobe", "kretprobe") else target_of(name)
                self.kinds.kinds.append(EventKind(name, target, {}, form))
                found = len(self.kinds.kinds) - 1
            self.named[key] = found
        return found


def _leftover(carried: tuple[Rows, Array, Array, Array] | None) -> Any:
    # What is left of the piece before: its unplaced rows and the bytes that they point into.
    if carried is None:
        return None
    rows, bundle, heads, tails = carried
    left = [(h, t) for h, t in zip(heads.tolist(), tails.tolist(), strict=True) if h < t]
    if not left:
        return None
    at = np.concatenate([np.arange(h, t) for h, t in left])
    return _Kept(rows, bundle, at, np.array([t - h for h, t in left], np.int64))


class _Kept:
    """Rows carried to the next piece, cut out of the last one's arrays."""

    def __init__(self, rows: Rows, bundle: Array, at: Array, lengths: Array) -> None:
        self.bundle = bundle[at]
        # Runs of a piece are numbered by CPU first; carried ones are renumbered in _join.
        self.tails = np.cumsum(lengths)
        self.heads = self.tails - lengths
        compact = rows.kind[at] <= LAST_COMPACT_KIND
        events = ~compact
        off = rows.off[at]
        # Bytes are kept from the first to the last payload of each run.
        new_off = off.copy()
        pieces, total = [], 0
        for head, tail in zip(self.heads.tolist(), self.tails.tolist(), strict=True):
            if not events[head]:
                continue
            low, high = int(off[head]), int(off[tail - 1] + rows.size[at[tail - 1]])
            pieces.append(rows.buf[low:high])
            new_off[head:tail] += total - low
            total += high - low
        self.buf = np.concatenate(pieces) if pieces else np.zeros(0, np.uint8)
        columns = off[compact]
        new_off[compact] = np.arange(columns.size)
        self.rows = Rows(
            self.buf, rows.ts[at], rows.cpu[at], rows.tid[at], rows.kind[at], new_off,
            rows.size[at], rows.origin[at], rows.maps[at], rows.compact[:, columns],
            rows.comm[columns],
        )  # fmt: skip


def _join(
    keep: _Kept, new: Rows, bundle: Array, heads: Array, tails: Array
) -> tuple[Rows, Array, Array, Array]:
    old = keep.rows
    shift = old.compact.shape[1]
    new.off[(new.kind >= 0) & (new.kind <= LAST_COMPACT_KIND)] += shift
    both = Rows(
        buf=new.buf,
        ts=np.concatenate((old.ts, new.ts)),
        cpu=np.concatenate((old.cpu, new.cpu)),
        tid=np.concatenate((old.tid, new.tid)),
        kind=np.concatenate((old.kind, new.kind)),
        off=np.concatenate((old.off, new.off)),
        size=np.concatenate((old.size, new.size)),
        origin=np.concatenate((old.origin, new.origin)),
        maps=np.concatenate((old.maps, new.maps)),
        compact=np.concatenate((old.compact, new.compact), axis=1),
        comm=np.concatenate((old.comm, new.comm)),
    )
    count = old.ts.size
    all_heads = np.concatenate((keep.heads, heads + count))
    all_tails = np.concatenate((keep.tails, tails + count))
    # Equal times go by CPU, then by age: a carried run of a CPU before a new one of it.
    run_order = np.argsort(both.cpu[all_heads], kind="stable")
    return (
        both,
        np.concatenate((keep.bundle, bundle)),
        np.ascontiguousarray(all_heads[run_order]),
        np.ascontiguousarray(all_tails[run_order]),
    )
