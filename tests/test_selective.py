"""Is a swap of enabled counters only priced by how many recorded loads enable?"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from analyzer.errors import UsageError
from analyzer.pipeline import IngestOptions, choose_designs, ingest, whatif
from analyzer.pipeline.prices.operations import recorded_operations
from analyzer.replay import Part, load_placement
from analyzer.store import Store
from tests.conftest import ROOT
from tests.test_replay_laws import GOOD


@pytest.fixture(scope="module", params=["k73m-hostperf", "k73m-overcommit", "k73mi-guestpmu"])
def store(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("selective") / "x.vpmu"
    recording = ROOT / "fixtures" / f"{request.param}.pftrace.zst"
    return ingest(str(recording), path, IngestOptions(emulated=True), lambda done, total: None)


# The enable bit of PERFEVTSEL is 22 (both vendors); fixed control has four bits a counter, the two
# lowest of which are its rings.
def plain_enabled(store: Store) -> tuple[float, float]:
    accesses = store.read("pmu_access", ["op", "role", "value"]).to_pylist()
    actors = store.read("pmu_attribution", ["actor"])["actor"].to_pylist()
    gp = fixed = 0
    for row, actor in zip(accesses, actors, strict=True):
        if actor == "kvm_load" and row["op"] == "write":
            if row["role"] == "selector":
                gp += row["value"] >> 22 & 1
            elif row["role"] == "fixed_ctrl":
                fixed += sum(digit in "123567" + "9abdef" for digit in f"{row['value']:x}")
    kinds = store.read("recorded_swap", ["kind"])["kind"].to_pylist()
    return gp / kinds.count("load"), fixed / kinds.count("load")


def test_recorded_loads_tell_how_many_counters_are_enabled(store: Store) -> None:
    found = recorded_operations(store, Part())
    assert found is not None
    want = plain_enabled(store)
    assert found.enabled == pytest.approx(want)
    assert want[0] < found.gp[1] or want[1] < found.fixed[1]


def test_enabled_counters_only_cost_no_more_and_swap_as_often(store: Store) -> None:
    every = choose_designs(["loop", "vcpu", "hardware"], selective=["no", "yes"])
    answers = {p["label"]: p for p in whatif(store, every)["placements"]}
    for name in ("loop", "vcpu", "hardware"):
        whole, some = (answers[word] for word in labels(name))
        assert some["loads"] == whole["loads"]
        for level in ("low", "typical", "high"):
            key = f"{level}_ns"
            assert some["overhead"][key] <= whole["overhead"][key], (name, level)
        saved = whole["overhead"]["typical_ns"] - some["overhead"]["typical_ns"]
        # The machine moves the guest's registers: there is nothing to leave out.
        assert (saved == 0) is (name == "hardware")
        assert ("selective" in some["assumptions"]) is True
        assert ("selective" in whole["assumptions"]) is False


def labels(name: str) -> tuple[str, str]:
    plain = f"{name}/told/notifier" if name == "vcpu" else f"{name}/told"
    return plain, f"{plain}/selective"


def test_a_file_and_the_flag_say_so(tmp_path: Path) -> None:
    assert load_placement(GOOD + "selective = true\n", "x.toml").selective is True
    assert tomllib.loads(GOOD).get("selective", False) is load_placement(GOOD, "x").selective
    with pytest.raises(UsageError, match="key 'selective' must be there and be a bool"):
        load_placement(GOOD + "selective = 1\n", "x.toml")
    with pytest.raises(UsageError, match="--selective is 'some'; allowed: yes, no"):
        choose_designs(["loop"], selective=["some"])
    path = tmp_path / "mine.toml"
    path.write_text(GOOD + "selective = true\n")
    assert [d.selective for d in choose_designs(["loop"], own=[path])] == [False, True]
