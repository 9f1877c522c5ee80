"""Which tables hold what the timeline concludes from the recorded events."""

from __future__ import annotations

from analyzer.tables.columns import Column, Table

BEGIN = Column("ts", "int64", "where it begins, on the recording's trace clock", "derived", "ns")
END = Column("end", "int64", "where it ends", "derived", "ns")
CPU = Column("cpu", "int32", "host's logical CPU", "derived")
VCPU_INDEX = Column("vcpu", "int32", "row of the vCPU in table vcpu", "derived")

VCPU = Table(
    "vcpu",
    "timeline",
    "vCPUs: host threads that run KVM_RUN, found from their events and never from names",
    (
        Column("vcpu", "int32", "number of this row", "derived"),
        Column("tid", "int32", "host thread", "common_pid of its KVM events"),
        Column("tgid", "int32", "its process: the VM", "process tree", None, True),
        Column("name", "string", "name of the thread, for people only", "process tree", None, True),
        Column("vcpu_id", "uint32", "KVM's number", "any kvm event that carries it", None, True),
        Column("entries", "int64", "kvm_entry events", "vm_entry", "events"),
        Column("exits", "int64", "kvm_exit events", "vm_exit", "events"),
        Column(
            "cancelled",
            "int64",
            "entries that no exit followed, in whole data",
            "derived",
            "events",
        ),
        Column(
            "lost", "int64", "entries or exits whose partner a data loss took", "derived", "events"
        ),
        Column(
            "unpaired", "int64", "exits that no entry precedes, in whole data", "derived", "events"
        ),
        Column("implied", "int64", "entries outside any recorded vcpu_load", "derived", "events"),
        Column("guest_ns", "int64", "time in guest mode", "guest_slice", "ns"),
        Column("late_ns", "int64", "kvm_exit's lateness, taken off guest_ns", "guest_slice", "ns"),
        Column("on_cpu_ns", "int64", "time on a CPU", "mode_slice", "ns"),
        Column("cpus", "int32", "different CPUs it ran on", "derived", "CPUs"),
        Column("migrations", "int64", "times it came back on another CPU", "derived", "events"),
        Column("inside_at_start", "bool", "was inside KVM_RUN when the recording began", "derived"),
        Column("inside_at_end", "bool", "was inside KVM_RUN when the recording ended", "derived"),
    ),
    sort=None,
)
GUEST_SLICE = Table(
    "guest_slice",
    "timeline",
    "guest mode: from kvm_entry to where the guest really stopped",
    (
        BEGIN,
        END,
        CPU,
        VCPU_INDEX,
        Column(
            "ended_by",
            "enum",
            "exit (kvm_exit), host_event (the first event of the host before a late kvm_exit), nmi "
            "(start of an NMI handler), cancelled (no guest mode at all), lost (data loss), "
            "window (the recording's end)",
            "derived",
        ),
        Column("exit_ts", "int64", "the kvm_exit event", "vm_exit", "ns", True),
        Column("reason", "text", "exit reason; null: not recorded", "vm_exit.reason", None, True),
    ),
    sort="end",
)
MODE_SLICE = Table(
    "mode_slice",
    "timeline",
    "what each vCPU does, tiling its time",
    (
        BEGIN,
        END,
        Column("cpu", "int32", "CPU it is on; null: on none", "derived", None, True),
        VCPU_INDEX,
        Column("mode", "enum", "guest, kvm, user, preempted, blocked or unknown", "derived"),
    ),
    sort="end",
)
RESIDENCY = Table(
    "residency",
    "timeline",
    "how long each boundary would keep the guest's PMU state on the CPU",
    (
        BEGIN,
        END,
        CPU,
        VCPU_INDEX,
        Column("boundary", "enum", "exit, loop, vcpu or sched", "derived"),
        Column(
            "bound",
            "enum",
            "exact; where marks leave a range: fewest (fewest swaps or shortest stay that they "
            "allow) and most",
            "derived",
        ),
    ),
    sort="end",
)
RECORDED_SWAP = Table(
    "recorded_swap",
    "timeline",
    "the kernel's own swaps, KVM's half and perf's, where register accesses show them; on arm64, "
    "where probes show it, KVM setting the filters of EL0, by which no register changes hands",
    (
        Column("ts", "int64", "first access", "pmu_access", "ns"),
        Column("end", "int64", "last access", "pmu_access", "ns"),
        Column(
            "switched_ts",
            "int64",
            "where the registers change hands: KVM's last access of a load, its first of a put",
            "pmu_access",
            "ns",
        ),
        CPU,
        Column("vcpu", "int32", "row of the vCPU in table vcpu", "derived", None, True),
        Column(
            "kind",
            "enum",
            "load, put, or again: arm64's filters set once more between the two",
            "derived",
        ),
        Column(
            "perf",
            "enum",
            "told or untold, where this swap shows it: told by perf's half or LVTPC, untold by KVM "
            "saving and restoring what is the host's",
            "derived",
            None,
            True,
        ),
        Column(
            "kvm_reads",
            "int32",
            "KVM's half: reads, RDPMC too; null: only calls are known",
            "pmu_access",
            "accesses",
            True,
        ),
        Column("kvm_writes", "int32", "KVM's half: writes", "pmu_access", "accesses", True),
        Column("perf_reads", "int32", "perf's half: reads", "pmu_access", "accesses", True),
        Column("perf_writes", "int32", "perf's half: writes", "pmu_access", "accesses", True),
        Column(
            "redundant_writes",
            "int32",
            "of KVM's writes, those of the value last seen in that register",
            "pmu_access",
            "accesses",
            True,
        ),
        Column("counters", "int32", "general counters walked", "pmu_access", "counters", True),
        Column(
            "guest_pmu_on",
            "bool",
            "the load enables a counter; null: a put or not known",
            "derived",
            None,
            True,
        ),
        Column(
            "grammar", "enum", "rule that found it: arch.x86.swaps, arch.arm64.probes", "derived"
        ),
        Column(
            "guest_counters",
            "int64",
            "set of counters that the load enables, fixed ones from bit 32; null: a put",
            "derived",
            None,
            True,
        ),
    ),
    sort="end",
)
TRUTH_DIFFERENCE = Table(
    "truth_difference",
    "timeline",
    "stays of the guest's state that are predicted from KVM and scheduling events alone and not "
    "recorded, or the reverse, for every boundary (only the kernel's own is to have none), and "
    "what a window's begin or end left without its other side, which is no difference",
    (
        Column("ts", "int64", "end of the predicted stay, begin of the recorded", "derived", "ns"),
        CPU,
        Column("vcpu", "int32", "row of the vCPU in table vcpu", "derived", None, True),
        Column("level", "enum", "whose prediction: analyzer.timeline.points.Level", "derived"),
        Column("cause", "enum", "what differs, or is cut", "derived"),
        Column("count", "int64", "how many such stays or edges the row stands for", "derived"),
    ),
)
PMU_ATTRIBUTION = Table(
    "pmu_attribution",
    "timeline",
    "whose access it is: row n belongs to row n of pmu_access",
    (
        Column("ts", "int64", "time of the access", "pmu_access", "ns"),
        CPU,
        Column("actor", "enum", "null: no register of the core PMU", "derived", None, True),
        Column("context", "enum", "of host perf's accesses", "derived", None, True),
        Column("episode", "int64", "number in host_episode", "derived", None, True),
    ),
)
FUNCTION_ATTRIBUTION = Table(
    "function_attribution",
    "timeline",
    "whose call it is, where probes stand for register accesses: row n belongs to row n of "
    "function_span; no rows at all where none of them does",
    (
        Column("ts", "int64", "time of the call", "function_span", "ns"),
        CPU,
        Column(
            "function",
            "enum",
            "the function in arch.arm64.probes; null: none of those",
            "function_span",
            None,
            True,
        ),
        Column("actor", "enum", "null: touches no PMU register", "derived", None, True),
        Column("context", "enum", "of host perf's calls", "derived", None, True),
        Column("episode", "int64", "number in host_episode", "derived", None, True),
    ),
)
HOST_EPISODE = Table(
    "host_episode",
    "timeline",
    "host perf's consecutive accesses to PMU registers on one CPU in one context; of an inferred "
    "episode the handler that they would be in",
    (
        Column("episode", "int64", "its number", "derived"),
        BEGIN,
        END,
        CPU,
        Column("tid", "int32", "thread that was current", "common_pid"),
        Column(
            "context",
            "enum",
            "in which context perf acted; nmi: the PMU's own interrupt (PMI), an NMI on x86 and an "
            "interrupt like others on arm64",
            "derived",
        ),
        Column("edge", "enum", "out or in: side of a context switch", "derived", None, True),
        Column("evidence", "enum", "observed or inferred; the two are never added up", "derived"),
        Column(
            "rule",
            "enum",
            "by which it is inferred (analyzer.timeline.inference); null: observed",
            "derived",
            None,
            True,
        ),
        Column(
            "accesses",
            "int32",
            "how many; on arm64 calls of the driver's functions; null: inferred",
            "pmu_access, function_span",
            "accesses",
            True,
        ),
        Column(
            "operations",
            "int64",
            "set of arch.x86.swaps.Token of them; what arm64's functions do: arch.arm64.probes; of "
            "an inferred one the least that its rule says",
            "derived",
        ),
        Column(
            "counters",
            "int64",
            "set of counters touched, fixed ones from bit 32; null: probes and rules don't tell",
            "derived",
            None,
            True,
        ),
        Column("vcpu", "int32", "vCPU whose thread was current", "derived", None, True),
        Column(
            "guest_state_on",
            "bool",
            "a guest's state was on the CPU, as recorded; null: inferred",
            "derived",
            None,
            True,
        ),
    ),
    sort="end",
)
OWNER_SLICE = Table(
    "owner_slice",
    "timeline",
    "whose the PMU of a CPU is: as recorded (placement null), tiling its time, or under a "
    "placement, a vCPU's stays only",
    (
        Column("placement", "string", "name of the placement", "its TOML", None, True),
        Column("perf_told", "bool", "option: perf is told at the boundary", "", None, True),
        Column("hook", "string", "option: perf or notifier", "", None, True),
        BEGIN,
        END,
        CPU,
        Column("owner", "enum", "host, vcpu, shared or unknown", "recorded_swap, replay"),
        Column("vcpu", "int32", "row of the vCPU in table vcpu", "derived", None, True),
    ),
    sort="end",
)
POINT = Table(
    "point",
    "timeline",
    "everything that could move ownership of a CPU's PMU: what the replay runs over",
    (
        Column("ts", "int64", "time", "derived", "ns"),
        CPU,
        Column(
            "vcpu",
            "int32",
            "row of the vCPU in table vcpu; null: the CPU's own. Of an episode, whose thread was "
            "current",
            "derived",
            None,
            True,
        ),
        Column("kind", "uint8", "number in analyzer.timeline.points.Kind", "derived"),
        Column(
            "detail",
            "int64",
            "of an episode, observed or inferred, its number times 256 plus its context "
            "(timeline.attribution.Context); "
            "else low byte: levels that it turns on or off (timeline.points.Level); above: for "
            "an exit the number of its reason plus one, 0 where none is known",
            "derived",
        ),
    ),
)
EXIT_REASON = Table(
    "exit_reason",
    "timeline",
    "exits by reason, numbered as `point` numbers them",
    (
        Column("number", "int32", "number in `point.detail`", "derived"),
        Column("reason", "string", "name; null: not recorded", "vm_exit.reason", None, True),
        Column("count", "int64", "exits", "vm_exit", "events"),
        Column("ns", "int64", "from the exit to that vCPU's next entry", "vm_exit, vm_entry", "ns"),
    ),
    sort=None,
)
WINDOW = Table(
    "window",
    "timeline",
    "the stretch of each CPU in which its stream is complete, but for data_loss rows",
    (
        Column("cpu", "int32", "host's logical CPU", "recording"),
        Column("ts", "int64", "where it begins", "formats.md 1.6", "ns"),
        Column("end", "int64", "where it ends", "formats.md 1.6", "ns"),
        Column("events", "int64", "events in the file", "recording", "events"),
    ),
    sort=None,
)

TIMELINE = (
    VCPU,
    GUEST_SLICE,
    MODE_SLICE,
    RESIDENCY,
    RECORDED_SWAP,
    TRUTH_DIFFERENCE,
    PMU_ATTRIBUTION,
    FUNCTION_ATTRIBUTION,
    HOST_EPISODE,
    OWNER_SLICE,
    POINT,
    EXIT_REASON,
    WINDOW,
)
