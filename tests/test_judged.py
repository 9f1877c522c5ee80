"""Which function is an access given to, by spans and by probes on functions' begins?"""

from __future__ import annotations

import numpy as np
import polars as pl

from analyzer.pipeline.contents.spans import INNER, OTHER, Order, by_probes, by_spans

NO_LOSS = np.zeros(0, np.int64)
Event = tuple[int, int, int, int, str]
LOAD, HALF, NMI = 0, 1, 2


def order(
    accesses: list[tuple[int, int, int]], events: list[Event], losses: list[int] | None = None
) -> Order:
    spans = ["ts", "cpu", "tid", "number", "phase"]
    return Order(
        pl.DataFrame(accesses, ["ts", "cpu", "tid"], orient="row"),
        pl.DataFrame(events, spans, orient="row"),
        np.array(losses or [], np.int64),
    )


def proofs(*rows: tuple[int, int]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), {"ts": pl.Int64, "cpu": pl.Int32}, orient="row")


def test_function_entered_last_of_those_open_names_the_access() -> None:
    edges = ((LOAD, 10, 40), (HALF, 20, 30), (NMI, 24, 26))
    events = [(begin, 0, 7, number, "enter") for number, begin, _ in edges]
    events += [(end, 0, 7, number, "return") for number, _, end in edges]
    times = [5, 15, 22, 25, 28, 35, 45]
    found = by_spans(order([(ts, 0, 7) for ts in times], events))
    assert found.tolist() == [OTHER, LOAD, HALF, NMI, HALF, LOAD, OTHER]


def test_function_open_at_the_windows_begin_shows_by_its_return() -> None:
    events = [(30, 0, 7, HALF, "return"), (40, 0, 7, LOAD, "return")]
    found = by_spans(order([(10, 0, 7), (35, 0, 7), (50, 0, 7)], events))
    # Of two that were open, the one that returns first was entered last.
    assert found.tolist() == [HALF, LOAD, OTHER]


def test_function_goes_with_its_thread_and_not_with_the_cpu() -> None:
    events = [(10, 0, 7, LOAD, "enter"), (20, 1, 0, HALF, "enter"), (40, 1, 7, LOAD, "return")]
    accesses = [(15, 0, 8), (30, 1, 7), (31, 1, 0), (32, 0, 0)]
    assert by_spans(order(accesses, events)).tolist() == [OTHER, LOAD, HALF, OTHER]


def test_nothing_is_known_to_be_open_behind_a_loss() -> None:
    events = [(10, 0, 7, LOAD, "enter"), (60, 0, 7, LOAD, "enter"), (70, 0, 7, LOAD, "return")]
    accesses = [(20, 0, 7), (55, 0, 7), (65, 0, 7)]
    assert by_spans(order(accesses, events, [50])).tolist() == [LOAD, OTHER, LOAD]


def test_access_at_the_very_time_of_an_edge_is_nobodys() -> None:
    events = [(10, 0, 7, LOAD, "enter"), (20, 0, 7, LOAD, "return")]
    accesses = [(10, 0, 7), (15, 0, 7), (20, 0, 7)]
    assert by_spans(order(accesses, events)).tolist() == [OTHER, LOAD, OTHER]


def test_probe_names_accesses_until_something_else_is_seen() -> None:
    events = [(10, 0, 7, LOAD, "enter"), (40, 0, 7, INNER, "enter"), (60, 0, 7, OTHER, "enter")]
    accesses = [(20, 0, 7), (30, 1, 7), (45, 0, 7), (50, 0, 8), (65, 0, 7)]
    found = by_probes(order(accesses, events), proofs(), None)
    assert found.tolist() == [LOAD, OTHER, LOAD, OTHER, OTHER]
    found = by_probes(order(accesses, events), proofs((42, 0), (15, 1)), None)
    assert found.tolist() == [LOAD, OTHER, OTHER, OTHER, OTHER]


# perf's half is over somewhere behind its last inner call; only what a call follows is certain.
def test_function_whose_caller_goes_on_is_certain_up_to_its_last_inner_call() -> None:
    events = [(10, 0, 7, LOAD, "enter"), (11, 0, 7, HALF, "enter"), (20, 0, 7, INNER, "enter"),
              (30, 0, 7, INNER, "enter")]  # fmt: skip
    accesses = [(15, 0, 7), (25, 0, 7), (35, 0, 7)]
    assert by_probes(order(accesses, events), proofs(), HALF).tolist() == [HALF, HALF, OTHER]
    # Without any inner call it touched nothing: the accesses are its caller's.
    assert by_probes(order(accesses, events[:2]), proofs(), HALF).tolist() == [LOAD] * 3
