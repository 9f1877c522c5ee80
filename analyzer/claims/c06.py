"""C6: of interrupt handlers, does only the NMI's touch PMU registers?"""

from __future__ import annotations

import polars as pl

from analyzer.claims.common import HANDLERS, episodes_of, registers_missing
from analyzer.claims.evidence import Evidence, first_ns
from analyzer.claims.verdict import FAILS, HOLDS, Claim, Deciding, Limits, Rows, Verdict, unknown

__all__ = ["CLAIM"]

# Without pseudo-NMIs a PMI is an interrupt like any other.
NO_NMI = ("loongarch", "riscv")


def _hard(e: Evidence, episodes: pl.DataFrame) -> pl.DataFrame:
    # Episodes in handlers of hard interrupts. A function that a CPU calls for itself runs in the
    # caller's context: it counts only inside a recorded call-function interrupt.
    handlers = episodes.filter(pl.col("context").is_in(HANDLERS), evidence="observed")
    vectors = e.read("interrupt", ["ts", "cpu", "name", "phase"]).filter(
        pl.col("name").str.starts_with("call_function"), pl.col("phase").is_in(["entry", "exit"])
    )
    vectors = vectors.select("cpu", "phase", vector_ts="ts").sort("vector_ts")
    found = handlers.sort("ts").join_asof(
        vectors, left_on="ts", right_on="vector_ts", by="cpu", strategy="backward",
        check_sortedness=False,
    )  # fmt: skip
    return found.filter((pl.col("context") != "ipi") | (pl.col("phase") == "entry"))


def _decide(e: Evidence, limits: Limits) -> Verdict:
    if e.arch in NO_NMI:
        return Verdict(FAILS, f"on {e.arch} a PMI is an interrupt like any other",
                       qualifier="by architecture")  # fmt: skip
    missing = registers_missing(e)
    if missing is not None:
        return missing
    episodes = episodes_of(e)
    hard = _hard(e, episodes)
    nmis = episodes.filter(context="nmi", evidence="observed")
    touched, in_nmi = int(hard["accesses"].sum()), int(nmis["accesses"].sum())
    kinds = hard.group_by("context").agg(pl.len(), pl.col("accesses").sum()).sort("context")
    numbers = {
        "accesses_in_nmi": in_nmi,
        "accesses_in_other_handlers": touched,
        "episodes_and_accesses_by_handler": {k: [n, a] for k, n, a in kinds.rows()},
        "local_calls_not_counted": int(
            episodes.filter(context="ipi", evidence="observed").height
            - hard.filter(context="ipi").height
        ),
    }
    evidence = (
        Rows("host_episode", len(hard), "context in tick, mux_timer, ipi", first_ns(hard)),
        Rows("host_episode", len(nmis), "context = nmi", first_ns(nmis)),
    )
    base = "host perf's register accesses in interrupts; process context and switches left out"
    if e.arch == "arm64":
        base = "calls of the PMU driver in interrupts; process context and switches left out"
    if touched:
        first = "; ".join(f"{k}: {a} accesses in {n} episodes" for k, n, a in kinds.rows())
        return Verdict(FAILS, first, numbers, base,
                       Deciding("accesses in other handlers", touched, 1), evidence)  # fmt: skip
    if in_nmi >= limits["accesses"]:
        return Verdict(HOLDS, "all of them in NMIs", numbers, base,
                       Deciding("accesses in NMIs", in_nmi, limits["accesses"]),
                       evidence)  # fmt: skip
    return unknown(
        f"{in_nmi} accesses in interrupts are too few to show it", "a host event that samples",
        numbers=numbers, base=base, evidence=evidence,
        deciding=Deciding("accesses in NMIs", in_nmi, limits["accesses"]),
    )  # fmt: skip


CLAIM = Claim("C6", "Of interrupt handlers, only the NMI's touches PMU registers",
              "Zhang, Apr 2024", _decide)  # fmt: skip
