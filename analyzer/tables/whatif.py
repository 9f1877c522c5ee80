"""Which tables hold the answer to a what-if."""

from __future__ import annotations

from analyzer.tables.columns import Column, Table

_NAME = Column("placement", "string", "name of the placement", "its TOML")


_OPTIONS = (
    Column("perf_told", "bool", "option: perf is told at the boundary", "its TOML, --perf"),
    Column("hook", "string", "option: perf or notifier", "its TOML, --hook", None, True),
    Column(
        "guard",
        "string",
        "option: irq_off, nmi_guard, dedicated_vector or fewer, joined by commas; empty: none",
        "its TOML, --guard",
    ),
    Column(
        "clearing",
        "string",
        "option: what a put writes to the guest's counters: blind, dirty or none",
        "its TOML, --clearing",
    ),
    Column(
        "selective",
        "bool",
        "option: only counters whose selector is enabled move",
        "its TOML, --selective",
    ),
)


def _range(name: str, unit: str, meaning: str) -> tuple[Column, Column]:
    # A quantity that the recording's marks can leave as a range: equal where it is exact.
    return (
        Column(
            f"{name}_low",
            "int64",
            f"{meaning}: the least that the marks allow",
            "replay",
            unit,
            True,
        ),
        Column(f"{name}_high", "int64", f"{meaning}: the most", "replay", unit, True),
    )


_COUNTS = (
    *_range("loads", "swaps", "guest's PMU state put on the CPU"),
    *_range("puts", "swaps", "guest's PMU state taken off"),
    *_range("residency_ns", "ns", "time with the guest's state on the CPU"),
    *_range("blind_ns", "ns", "time in host code while it is on"),
    *_range("blind_kvm_ns", "ns", "of that, KVM's code"),
    *_range("blind_user_ns", "ns", "of that, the VMM's user code"),
    *_range("blind_interrupt_ns", "ns", "of that, vectors, irqs, softirqs and NMIs"),
    *_range("blind_other_ns", "ns", "of that, anything else"),
)
_PRICES = (
    Column("overhead_low_ns", "float64", "priced swaps, lowest", "cost file", "ns", True),
    Column("overhead_typical_ns", "float64", "priced swaps, typical", "cost file", "ns", True),
    Column("overhead_high_ns", "float64", "priced swaps, highest", "cost file", "ns", True),
)
PLACEMENT = Table(
    "placement",
    "whatif",
    "one row a placement, all vCPUs together",
    (
        _NAME,
        *_OPTIONS,
        Column("boundary", "string", "where it swaps", "its TOML"),
        *_COUNTS,
        Column("loaded_at_start", "int64", "stretches of whole data that begin loaded", "replay"),
        Column("loaded_at_end", "int64", "stretches of whole data that end loaded", "replay"),
        Column("guest_ns", "int64", "time in guest mode", "replay", "ns"),
        *_PRICES,
        *_range(
            "leak_to_user_ns",
            "ns",
            "others' code beside the guest's values, under this clearing, if RDPMC were allowed",
        ),
        *_range("leak_windows", "windows", "stays and stretches after a put that leak so"),
    ),
    sort=None,
)
PLACEMENT_VCPU = Table(
    "placement_vcpu",
    "whatif",
    "one row a placement and vCPU",
    (
        _NAME,
        Column("vcpu", "int32", "row of the vCPU in table vcpu", "timeline"),
        *_COUNTS,
        Column("loaded_at_start", "int64", "stretches of whole data that begin loaded", "replay"),
        Column("loaded_at_end", "int64", "stretches of whole data that end loaded", "replay"),
        Column("guest_ns", "int64", "time in guest mode", "replay", "ns"),
        Column("exits", "int64", "its exits", "replay", "events"),
        *_PRICES,
    ),
    sort=None,
)
PLACEMENT_REASON = Table(
    "placement_reason",
    "whatif",
    "one row a placement and exit reason: what happens from that exit to the next entry, and that "
    "entry's load",
    (
        _NAME,
        Column(
            "reason",
            "string",
            "exit reason; null: not recorded, or none came before",
            "vm_exit",
            None,
            True,
        ),
        Column("exits", "int64", "exits of that reason", "replay", "events"),
        *_range("loads", "swaps", "guest's PMU state put on the CPU"),
        *_range("puts", "swaps", "guest's PMU state taken off"),
        *_range("blind_ns", "ns", "time in host code while it is on"),
        *_PRICES,
    ),
    sort=None,
)
PLACEMENT_TIME = Table(
    "placement_time",
    "whatif",
    "one row a placement, hook, bound of the marks and bucket of time: each bound sums up to its "
    "totals",
    (
        _NAME,
        Column("hook", "string", "option: perf or notifier", "its TOML, --hook", None, True),
        Column("bound", "enum", "exact; where marks leave a range: fewest and most", "replay"),
        Column("bucket", "int32", "number of the bucket", "--buckets"),
        Column("ts", "int64", "where it begins", "derived", "ns"),
        Column("end", "int64", "where it ends", "derived", "ns"),
        Column("loads", "int64", "guest's PMU state put on a CPU", "owner_slice", "swaps"),
        Column("puts", "int64", "guest's PMU state taken off", "owner_slice", "swaps"),
        Column("residency_ns", "int64", "with it on, all CPUs together", "owner_slice", "ns"),
        Column("blind_ns", "int64", "of that, in host code", "owner_slice, point", "ns"),
        Column("exits", "int64", "exits", "replay", "events"),
        *_PRICES,
    ),
    sort=None,
)
CONFLICT = Table(
    "conflict",
    "whatif",
    "episodes of host perf that meet a guest's state: one row for each rule of "
    "analyzer.arch.x86.conflicts that fits",
    (
        _NAME,
        *_OPTIONS,
        Column("ts", "int64", "first access of the episode", "host_episode", "ns"),
        Column("cpu", "int32", "host's logical CPU", "host_episode"),
        Column("vcpu", "int32", "whose state it meets", "replay"),
        Column(
            "episode", "int64", "number in host_episode; null: none", "host_episode", None, True
        ),
        Column("context", "enum", "in which context perf acts; guest_pmi: a guest's overflow", ""),
        Column("evidence", "enum", "observed or inferred", "host_episode"),
        Column("cause", "enum", "suppressed, late, persists, touches or new", "rule"),
        Column("consequence", "enum", "what it does", "rule"),
        Column("rule", "enum", "name of the rule", "rule"),
        Column("shown", "enum", "recordings that show it, or derived", "rule"),
        Column("entry_follows", "bool", "a VM entry comes before the put", "replay"),
        Column("until", "int64", "the put; null: none was seen", "replay", "ns", True),
    ),
)
WHATIF = (PLACEMENT, PLACEMENT_VCPU, PLACEMENT_REASON, PLACEMENT_TIME, CONFLICT)
