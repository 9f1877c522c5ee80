"""Do predictions contain what the kernel recorded of itself through probes?

Probes on kvm_arch_vcpu_load and kvm_arch_vcpu_put are ground truth for placement `vcpu`; the
prediction sees kvm_timer events, ioctls and switches only.
"""

from __future__ import annotations

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
