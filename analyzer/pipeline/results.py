"""Which tables does a what-if leave in the store? Rows of one design, and the set written whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from analyzer.errors import OutputError
from analyzer.pipeline.part import Asked
from analyzer.pipeline.replays import Design, Outcome
from analyzer.replay import Part
from analyzer.replay import kernel as q
from analyzer.store import Store, write_table
from analyzer.store.layout import DATA_VERSION, WHATIF_FOLDER, table_file
from analyzer.store.writing import replace_folder
from analyzer.tables import BY_NAME, arrow_schema

__all__ = ["BLIND", "RESULTS", "pair_of", "result_rows", "write_results"]

RESULTS = (
    "placement", "placement_vcpu", "placement_reason", "placement_time", "conflict", "owner_slice",
)  # fmt: skip
BLIND = {"kvm": q.N_KVM, "user": q.N_USER, "interrupt": q.N_INTERRUPT, "other": q.N_OTHER}


def pair_of(low: int | None, high: int | None) -> tuple[int | None, int | None]:
    """Return two bounds in order; either may be unknown, then as they are."""
    if low is None or high is None:
        return low, high
    return min(low, high), max(low, high)


def _labelled(rows: pl.DataFrame, label: dict[str, Any]) -> pl.DataFrame:
    words = {key: pl.String for key in label if key != "perf_told"}
    return rows.select(
        *(pl.lit(value, words.get(key)).alias(key) for key, value in label.items()), pl.all()
    )


def _slices(raw: np.ndarray[Any, Any], part: Part) -> pl.DataFrame:
    # Stays in the part; one across a cut ends or begins there, as residency counts it.
    chosen = Part(cpus=part.cpus, vcpus=part.vcpus)
    raw = raw[chosen.holds(raw[:, q.S_TS], raw[:, q.S_CPU], raw[:, q.S_VCPU])]
    if part.begin is not None:
        raw = raw[(raw[:, q.S_END] > part.begin) | (raw[:, q.S_TS] >= part.begin)]
        raw[:, q.S_TS] = np.maximum(raw[:, q.S_TS], part.begin)
    if part.end is not None:
        raw = raw[raw[:, q.S_TS] < part.end]
        raw[:, q.S_END] = np.minimum(raw[:, q.S_END], part.end)
    return pl.DataFrame(
        {
            "ts": raw[:, q.S_TS],
            "end": raw[:, q.S_END],
            "cpu": raw[:, q.S_CPU],
            "owner": "vcpu",
            "vcpu": raw[:, q.S_VCPU],
        },
        schema_overrides={"owner": pl.String},
    )


def _first(rows: list[dict[str, Any]], placement: str) -> dict[str, Any]:
    return next(row for row in rows if row["placement"] == placement)


def result_rows(
    store: Store, design: Design, outcome: Outcome, met: pl.DataFrame, answer: dict[str, Any],
    rows: dict[str, list[Any]], part: Part, exits: dict[int, int],
) -> None:  # fmt: skip
    """Add one design's rows to `rows`, by the names of RESULTS, without their prices; met: its rows
    of `conflict`. exits: by vCPU."""
    placement, pair = design.placement, outcome.counts
    label = {"placement": placement.name, "perf_told": design.told, "hook": design.hook}
    more = {
        "guard": ",".join(design.guard), "clearing": design.clearing, "selective": design.selective,
    }  # fmt: skip
    rows["conflict"].append(_labelled(met, {**label, **more}))
    owners = _labelled(_slices(outcome.slices[1], part), label)
    # What else is an option moves no swap: who owns the PMU is told once.
    if not any({key: row[key] for key in label} == label for row in rows["placement"]):
        rows["owner_slice"].append(owners)
    label.update(more)
    hidden = placement.name == "exit" and store.manifest["marks"]["hidden_reentries"]

    def counted(per: list[np.ndarray[Any, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        columns = {"loads": q.N_LOADS, "puts": q.N_PUTS, "residency_ns": q.N_RESIDENCY}
        columns.update({f"blind_{name}_ns": column for name, column in BLIND.items()})
        for name, column in columns.items():
            made[f"{name}_low"], made[f"{name}_high"] = pair_of(
                int(per[0][column]), int(per[1][column])
            )
        blind = [int(p[list(BLIND.values())].sum()) for p in per]
        made["blind_ns_low"], made["blind_ns_high"] = pair_of(*blind)
        if hidden:
            made["loads_high"] = made["puts_high"] = None
        made["loaded_at_start"], made["loaded_at_end"] = (
            int(per[0][q.N_START]),
            int(per[0][q.N_END]),
        )
        made["guest_ns"] = int(per[0][q.N_GUEST])
        return made

    name = {"placement": placement.name}
    own = answer["leak_ns"]["by_clearing"][design.clearing]
    leak = {
        f"leak_{made}_{bound}": own[f"{key}_{bound}"]
        for made, key in (("to_user_ns", "to_user"), ("windows", "windows"))
        for bound in ("low", "high")
    }
    overhead = {
        f"overhead_{x}_ns": answer["overhead"][f"{x}_ns"] for x in ("low", "typical", "high")
    }
    if any(row["placement"] == placement.name for row in rows["placement"]):
        # Options move no swap: their counts are the same, and only their price is their own.
        first = _first(rows["placement"], placement.name)
        rows["placement"].append({**first, **label, **overhead, **leak})
        return
    every = counted([c.vcpus.sum(axis=0) for c in pair])
    rows["placement"].append({**label, "boundary": placement.boundary, **every, **overhead, **leak})
    for v in range(pair[0].vcpus.shape[0]) if part.vcpus is None else part.vcpus:
        mine = {"vcpu": v, "exits": exits.get(v, 0), **counted([c.vcpus[v] for c in pair])}
        rows["placement_vcpu"].append({**name, **mine})
    for number, reason in enumerate([None, *store.manifest["reasons"]]):
        fewest, most = pair[0].reasons[number], pair[1].reasons[number]
        # Every placement lists the same reasons: those that the recording has exits of.
        seen = fewest[q.Q_EXITS] or fewest.any() or most.any()
        if seen or number == 0:
            row = {**name, "reason": reason, "exits": int(fewest[q.Q_EXITS])}
            for key, column in (("loads", q.Q_LOADS), ("puts", q.Q_PUTS), ("blind_ns", q.Q_BLIND)):
                low, high = pair_of(int(fewest[column]), int(most[column]))
                row[f"{key}_low"], row[f"{key}_high"] = low, high
            rows["placement_reason"].append(row)


def write_results(
    store: Store, names: list[str], cost: str | None, asked: Asked, rows: dict[str, list[Any]],
    buckets: int,
) -> None:  # fmt: skip
    """Write one result set, whole or not at all; its folder is named by what was asked for."""
    # More buckets are another table.
    key = json.dumps([sorted(names), cost, DATA_VERSION, asked.as_json(), buckets])
    name = hashlib.sha256(key.encode()).hexdigest()[:16]
    folder = store.path / WHATIF_FOLDER
    try:
        folder.mkdir(exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder))
        try:
            for table, made in rows.items():
                declared, file = BY_NAME[table], aside / table_file(table)
                write_table(file, _table(made, arrow_schema(declared)), declared)
            (aside / "manifest.json").write_text(key + "\n")
            os.chmod(aside, 0o755)
            replace_folder(aside, folder / name)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    except OSError as error:
        raise OutputError(f"{folder}: cannot write results: {error}") from error


def _table(made: list[Any], schema: pa.Schema) -> pa.Table:
    frames = [item for item in made if isinstance(item, pl.DataFrame)]
    if not frames:
        return pa.Table.from_pylist(made, schema)
    whole = pl.concat(frames).select(schema.names).to_arrow()
    return pa.Table.from_arrays(
        [
            whole[field.name].cast(pa.string()).dictionary_encode().cast(field.type)
            if pa.types.is_dictionary(field.type)
            else whole[field.name].cast(field.type)
            for field in schema
        ],
        schema=schema,
    )
