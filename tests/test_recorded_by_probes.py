"""Do predictions contain what the kernel recorded of itself through probes?

Probes on kvm_arch_vcpu_load and kvm_arch_vcpu_put are ground truth for placement `vcpu`, and so are
those on arm64's filters of EL0 that VHE sets there; the prediction sees kvm_timer events, ioctls
and switches only.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from analyzer.pipeline import IngestOptions, choose_designs, ingest, whatif

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "B-arm64-k72-hostperf-kp.pftrace.zst"


def test_vcpu_loads_and_puts_contain_the_probed_numbers(tmp_path: Path) -> None:
    store = ingest(str(FIXTURE), tmp_path / "x.vpmu", IngestOptions(), lambda done, total: None)
    spans = store.read("function_span")
    tids = pa.array(store.read("vcpu")["tid"].to_pylist(), pa.int32())
    names = spans["name"].cast(pa.string())
    own = pc.is_in(spans["tid"], tids)
    answer = whatif(store, choose_designs(["vcpu"]))["placements"][0]
    for probe, key in (("kvm_arch_vcpu_load", "loads"), ("kvm_arch_vcpu_put", "puts")):
        recorded = len(spans.filter(pc.and_(own, pc.equal(names, probe))))
        assert recorded > 700
        assert answer[f"{key}_low"] <= recorded <= answer[f"{key}_high"], probe
        assert answer[f"{key}_high"] - answer[f"{key}_low"] <= 3


# restore_guest also runs between load and put, where the driver or the guest changed an event: such
# rows are kind `again`, so loads and puts stay those of the stays.
def test_filters_of_el0_are_set_at_vcpu_load_and_put(tmp_path: Path) -> None:
    store = ingest(str(FIXTURE), tmp_path / "x.vpmu", IngestOptions(), lambda done, total: None)
    names = Counter(row["name"] for row in store.read("function_span", ["name"]).to_pylist())
    swaps = store.read("recorded_swap").to_pylist()
    kinds = Counter(row["kind"] for row in swaps)
    assert kinds["load"] == names["kvm_arch_vcpu_load"]
    assert kinds["put"] == names["kvm_arch_vcpu_put"] == names["kvm_vcpu_pmu_restore_host"]
    # The recording ends between a restore and its calls.
    assert names["kvm_vcpu_pmu_restore_guest"] - kinds["load"] - kinds["again"] == 1
    assert {row["grammar"] for row in swaps} == {f"arm64_el0_filter_{kind}" for kind in kinds}
    answer = whatif(store, choose_designs(["vcpu"]))
    assert (answer["recorded"]["placement"], answer["recorded"]["what"]) == ("vcpu", "el0_filters")
    assert answer["truth"]["differences"] == 0
    # No register changes hands: the PMU is the host's all the time, and nothing was counted.
    assert store.read("owner_slice").num_rows == 0
    assert {row["kvm_writes"] for row in swaps} == {None}
    assert not any(store.read("host_episode", ["guest_state_on"])["guest_state_on"].to_pylist())
