"""Which tables hold what a recording says, event by event, before anything is concluded."""

from __future__ import annotations

from analyzer.tables.columns import Column, Table

TS = Column("ts", "int64", "time of the event on the recording's trace clock", "event header", "ns")
CPU = Column("cpu", "int32", "host's logical CPU that the event was recorded on", "per-CPU stream")
TID = Column("tid", "int32", "kernel thread that was current", "common_pid", nullable=True)
_HEAD = (TS, CPU, TID)


def _column(name: str, kind: str, meaning: str, source: str, unit: str | None = None) -> Column:
    # What a format cannot carry is null, so every payload column is nullable.
    return Column(name, kind, meaning, source, unit, nullable=True)


VM_ENTRY = Table(
    "vm_entry",
    "recorded",
    "VM entries: kvm_entry, emitted with interrupts off just before guest mode",
    (
        *_HEAD,
        _column("vcpu_id", "uint32", "KVM's number of the vCPU in its VM", "kvm_entry.vcpu_id"),
        _column("rip", "uint64", "guest instruction pointer", "kvm_entry.rip (x86)"),
        _column("vcpu_pc", "uint64", "guest program counter", "kvm_entry.vcpu_pc (arm64)"),
        _column("immediate_exit", "bool", "entered only to leave", "kvm_entry.immediate_exit"),
        _column("intr_info", "uint32", "event injected with the entry", "kvm_entry.intr_info"),
        _column("error_code", "uint32", "error code injected with it", "kvm_entry.error_code"),
    ),
)
VM_EXIT = Table(
    "vm_exit",
    "recorded",
    "VM exits: kvm_exit. Off x86 it is emitted late: see guest_slice for where the guest stopped",
    (
        *_HEAD,
        _column("vcpu_id", "uint32", "KVM's number of the vCPU in its VM", "kvm_exit.vcpu_id"),
        _column("isa", "enum", "VMX, SVM or arm64", "kvm_exit.isa, or the fields the event has"),
        _column("exit_reason", "uint64", "reason as the CPU gave it", "kvm_exit.exit_reason"),
        _column("reason", "text", "its name: arch.x86.exits or arch.arm64.exits", "derived"),
        _column("guest_rip", "uint64", "guest instruction pointer", "kvm_exit.guest_rip (x86)"),
        _column("info1", "uint64", "exit qualification (VMX) or EXITINFO1", "kvm_exit.info1"),
        _column("info2", "uint64", "IDT vectoring (VMX) or EXITINFO2", "kvm_exit.info2"),
        _column("intr_info", "uint32", "interruption information", "kvm_exit.intr_info"),
        _column("error_code", "uint32", "its error code", "kvm_exit.error_code"),
        _column("requests", "uint64", "vCPU requests pending at the exit", "kvm_exit.requests"),
        _column("ret", "int32", "exception type of the world switch", "kvm_exit.ret (arm64)"),
        _column("esr_ec", "uint32", "exception class where ret is TRAP", "kvm_exit.esr_ec (arm64)"),
        _column("vcpu_pc", "uint64", "guest program counter", "kvm_exit.vcpu_pc (arm64)"),
    ),
)
USERSPACE_EXIT = Table(
    "userspace_exit",
    "recorded",
    "returns of KVM_RUN to user space: kvm_userspace_exit, emitted shortly after vcpu_put",
    (
        *_HEAD,
        _column("reason", "uint32", "KVM_EXIT_* number", "kvm_userspace_exit.reason"),
        _column("errno", "int32", "negative errno of the ioctl", "kvm_userspace_exit.errno"),
    ),
)
KVM_RUN = Table(
    "kvm_run",
    "recorded",
    "ioctl system calls, of which KVM_RUN (cmd 0xae80) runs a vCPU",
    (
        *_HEAD,
        Column("phase", "enum", "enter or exit", "sys_enter_ioctl, sys_exit_ioctl"),
        _column("fd", "int64", "file descriptor", "sys_enter_ioctl.fd"),
        _column("cmd", "uint64", "ioctl number", "sys_enter_ioctl.cmd"),
        _column("ret", "int64", "what the ioctl returned", "sys_exit_ioctl.ret"),
    ),
)
KVM_FPU = Table(
    "kvm_fpu",
    "recorded",
    "guest FPU load and unload by KVM: just inside vcpu_load..vcpu_put of one KVM_RUN",
    (*_HEAD, _column("load", "bool", "true: load, false: unload", "kvm_fpu.load")),
)
KVM_MSR = Table(
    "kvm_msr",
    "recorded",
    "guest's MSR accesses that KVM intercepts and emulates: kvm_msr",
    (
        *_HEAD,
        _column("write", "bool", "true: WRMSR, false: RDMSR", "kvm_msr.write"),
        _column("ecx", "uint32", "MSR number", "kvm_msr.ecx"),
        _column("data", "uint64", "value written or read", "kvm_msr.data"),
        _column("exception", "bool", "the guest was given a #GP instead", "kvm_msr.exception"),
    ),
)
PMU_ACCESS = Table(
    "pmu_access",
    "recorded",
    "register accesses of the msr events; one that is in no PMU catalogue has a null role",
    (
        *_HEAD,
        Column("op", "enum", "read, write or rdpmc", "read_msr, write_msr, rdpmc"),
        _column("address", "uint32", "MSR number, or ECX of rdpmc", "msr"),
        _column("register", "enum", "name in the catalogue of analyzer.arch", "derived"),
        _column("role", "enum", "what the register is for", "derived"),
        _column("index", "int32", "which counter, where the register is one of several", "derived"),
        _column("value", "uint64", "value read or written", "val"),
        _column("failed", "bool", "the access faulted", "failed"),
    ),
)
INTERRUPT = Table(
    "interrupt",
    "recorded",
    "interrupt vectors, device interrupts, softirqs and NMI handlers",
    (
        *_HEAD,
        Column("kind", "enum", "vector, irq, softirq, ipi or nmi", "event name"),
        Column(
            "phase",
            "enum",
            "entry, exit, raise, or handler (an NMI handler that ended)",
            "event name",
        ),
        Column("name", "text", "event name less its phase", "event name"),
        _column("vector", "int64", "vector, irq or softirq number", "vector, irq or vec"),
        _column("text", "text", "name of the interrupt or reason of the IPI", "name, reason"),
        _column("ret", "int64", "handled", "irq_handler_exit.ret, nmi_handler.handled"),
        _column(
            "handler",
            "uint64",
            "handler, as a serial number where pointers are",
            "nmi_handler.handler",
        ),
        _column("handler_name", "text", "its name", "kernel symbols of the recording"),
        _column("delta_ns", "int64", "how long an NMI handler took", "nmi_handler.delta_ns", "ns"),
    ),
)
FUNCTION_CALL = Table(
    "function_call",
    "recorded",
    "functions called on other CPUs, and the IPIs that carry them",
    (
        *_HEAD,
        Column("phase", "enum", "queue, entry, exit or ipi", "csd_*, ipi_send_cpu"),
        _column("target_cpu", "int32", "CPU that is asked", "csd_queue_cpu.cpu, ipi_send_cpu.cpu"),
        _column(
            "func", "uint64", "function, as a serial number where pointers are", "func, callback"
        ),
        _column("func_name", "text", "its name", "kernel symbols of the recording"),
        _column("csd", "uint64", "call descriptor, likewise", "csd"),
        _column("callsite", "uint64", "caller, likewise", "callsite"),
    ),
)
TIMER = Table(
    "timer",
    "recorded",
    "high-resolution timers and the stopping of the tick",
    (
        *_HEAD,
        Column(
            "phase", "enum", "start, cancel, expire_entry, expire_exit or tick_stop", "event name"
        ),
        _column("hrtimer", "uint64", "timer, as a serial number where pointers are", "hrtimer"),
        _column("function", "uint64", "its function, likewise", "function"),
        _column("function_name", "text", "its name", "kernel symbols of the recording"),
        _column("expires", "int64", "expiry", "expires", "ns"),
        _column("softexpires", "int64", "soft expiry", "softexpires", "ns"),
        _column("now", "int64", "timer clock at expiry", "now", "ns"),
        _column("mode", "uint32", "HRTIMER_MODE_*", "mode"),
        _column("success", "bool", "the tick was stopped", "tick_stop.success"),
        _column("dependency", "uint32", "what kept the tick", "tick_stop.dependency"),
    ),
)
SCHED_SWITCH = Table(
    "sched_switch",
    "recorded",
    "context switches; tid is the thread that leaves",
    (
        *_HEAD,
        _column("prev_comm", "text", "name of the thread that leaves", "prev_comm"),
        _column("prev_pid", "int32", "thread that leaves", "prev_pid"),
        Column(
            "prev_pid_from",
            "enum",
            "recorded; previous_switch or current_thread where the format drops prev_pid and it "
            "was rebuilt; none where nothing tells",
            "derived",
        ),
        _column("prev_prio", "int32", "its priority", "prev_prio"),
        _column("prev_state", "int64", "its state: low byte 0 = still runnable", "prev_state"),
        _column("next_comm", "text", "name of the thread that comes", "next_comm"),
        _column("next_pid", "int32", "thread that comes", "next_pid"),
        _column("next_prio", "int32", "its priority", "next_prio"),
    ),
)
WAKEUP = Table(
    "wakeup",
    "recorded",
    "wake-ups; tid is the waker (rebuilt from the running thread where the format drops it)",
    (
        *_HEAD,
        Column("phase", "enum", "waking, wakeup or wakeup_new", "event name"),
        _column("comm", "text", "name of the woken thread", "comm"),
        _column("pid", "int32", "woken thread", "pid"),
        _column("prio", "int32", "its priority", "prio"),
        _column("target_cpu", "int32", "CPU it is put on", "target_cpu"),
    ),
)
FUNCTION_SPAN = Table(
    "function_span",
    "recorded",
    "probed or traced functions",
    (
        *_HEAD,
        Column("name", "text", "name of the probe or function", "kprobe_event.name"),
        Column("phase", "enum", "enter, return or instant", "kprobe_event.type"),
        _column("function", "text", "function of a probe", "kernel symbols of the recording"),
    ),
)
PERF_SAMPLE = Table(
    "perf_sample",
    "recorded",
    "samples that a host's perf event took; one that the recorder gave up tells why",
    (
        TS,
        _column("cpu", "int32", "host's logical CPU that was sampled", "PerfSample.cpu"),
        _column("tid", "int32", "thread that was sampled", "PerfSample.tid"),
        _column("pid", "int32", "its process", "PerfSample.pid"),
        _column(
            "cpu_mode",
            "enum",
            "unknown, kernel, user, hypervisor, guest_kernel or guest_user",
            "PerfSample.cpu_mode",
        ),
        _column("count", "uint64", "the event's count at the sample", "PerfSample.timebase_count"),
        _column(
            "callstack",
            "uint64",
            "serial number of the call stack, which stays in the recording",
            "PerfSample.callstack_iid",
        ),
        _column(
            "skipped",
            "enum",
            "where it was given up: read_stage, unwind_stage, unwind_enqueue or not_in_scope",
            "PerfSample.sample_skipped_reason",
        ),
    ),
)
HOST_EVENT = Table(
    "host_event",
    "recorded",
    "perf events that were on on the host, as the recorder's configuration or the user says",
    (
        Column("name", "string", "its name, or the counter's or tracepoint's", "PerfEventConfig"),
        Column("use", "enum", "sampled, or counted with each sample", "timebase, followers"),
        _column("type", "uint32", "PERF_TYPE_*; null: the kernel's own number", "counter, type"),
        _column("config", "uint64", "event within its type", "counter, raw_event.config"),
        _column("freq", "uint64", "samples asked for", "timebase.frequency", "Hz"),
        _column("period", "uint64", "events between two samples", "timebase.period", "events"),
        _column("exclude_guest", "bool", "not counted while a guest runs", "perf_event_attr"),
        _column("exclude_host", "bool", "counted in guests only", "perf_event_attr"),
        _column("exclude_kernel", "bool", "not counted in the kernel", "modifiers"),
        _column("exclude_user", "bool", "not counted in user space", "modifiers"),
        _column("pinned", "bool", "never multiplexed", "perf_event_attr"),
        _column(
            "scope",
            "enum",
            "cpu: all threads of each CPU; task: one thread's or process's",
            "perfetto:src/profiling/perf",
        ),
        _column("cpus", "string", "CPUs that it was on, as in 0,2-3; null: all", "the user"),
        _column("tid", "int32", "thread whose event it was", "the user"),
        _column("pid", "int32", "process whose threads' event it was", "the user"),
        Column("source", "string", "who says so: recording, or the option and its file", ""),
    ),
    sort=None,
)
OTHER_EVENT = Table(
    "other_event",
    "recorded",
    "events without a table of their own: their payload stays in the recording",
    (
        *_HEAD,
        Column("name", "text", "event name", "event header"),
        _column("vcpu_id", "uint32", "KVM's number of the vCPU, where the event has it", "vcpu_id"),
    ),
)
THREAD = Table(
    "thread",
    "recorded",
    "threads that the recording names",
    (
        Column("tid", "int32", "kernel thread id", "process tree, sched events"),
        _column("tgid", "int32", "its process", "process tree"),
        _column("name", "string", "its last name", "process tree, sched events"),
        _column("cmdline", "string", "command line of its process", "process tree"),
    ),
    sort=None,
)
DATA_LOSS = Table(
    "data_loss",
    "recorded",
    "stretches in which events are missing",
    (
        Column(
            "ts",
            "int64",
            "where the loss begins (`from`); null: before the window, or not known",
            "",
            "ns",
            True,
        ),
        Column("end", "int64", "where the stream is whole again (`to`)", "", "ns", True),
        Column("cpu", "int32", "CPU whose stream it is; null: any", "", None, True),
        Column("cause", "enum", "what tells of the loss", ""),
        Column("events", "int64", "how many events; null: at least one", "", None, True),
    ),
    sort="end",
)
EVENT_COUNT = Table(
    "event_count",
    "recorded",
    "every event name in the file, and those that were asked for",
    (
        Column("name", "string", "event name", "event header, descriptors"),
        Column(
            "count",
            "int64",
            "events in the file; null: asked for and not recorded",
            "",
            "events",
            True,
        ),
        Column("table", "string", "table that its rows went to", "", None, True),
        Column(
            "asked", "bool", "the recorder's configuration names it", "trace config", None, True
        ),
    ),
    sort=None,
)

RECORDED = (
    VM_ENTRY,
    VM_EXIT,
    USERSPACE_EXIT,
    KVM_RUN,
    KVM_FPU,
    KVM_MSR,
    PMU_ACCESS,
    INTERRUPT,
    FUNCTION_CALL,
    TIMER,
    SCHED_SWITCH,
    WAKEUP,
    FUNCTION_SPAN,
    PERF_SAMPLE,
    HOST_EVENT,
    OTHER_EVENT,
    THREAD,
    DATA_LOSS,
    EVENT_COUNT,
)
