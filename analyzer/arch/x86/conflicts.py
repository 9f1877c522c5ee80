"""What happens when host perf meets a guest's PMU state? Operation and circumstances to effect.

One declared table. Each episode of host perf that falls into a guest's stay is held against every
rule; each rule that fits gives one row. `shown` names the recordings that have it, all AMD's; a
rule that none shows is derived from the source: facts/x86.md 5.3 (Linux 7.3.4).

Where perf is told at the boundary its events are off: what the recording shows it doing would not
happen, except what perf core does around any change of its events, whether one is on or not: it
writes global control to 0 and back to its own mask. Untold, it goes on as recorded.

Guards (facts/x86.md 6) hold off what perf's own bookkeeping does not: a rule names the guards
without which, or with which, it holds, and its name says which one mattered.
"""

from __future__ import annotations

from dataclasses import dataclass

from analyzer.arch.x86.swaps import Token

__all__ = ["AFTER_THE_PUT", "CAUSES", "CONSEQUENCES", "RULES", "Rule"]

_GLOBAL = Token.GLOBAL_OFF | Token.GLOBAL_ON
_COUNT_READS = Token.COUNTER_READ | Token.FIXED_READ
# A start writes what is left of the event's period, never 0; 0 is written only by
# perf_clear_dirty_counters, to what events have left in counters that none has now.
_STARTS = Token.COUNTER_WRITE | Token.FIXED_WRITE
_CLEARS = Token.COUNTER_ZERO | Token.FIXED_ZERO
_PROGRAMS = (
    _STARTS
    | _CLEARS
    | Token.SELECTOR_ZERO
    | Token.SELECTOR_WRITE
    | Token.FIXED_CTRL_ZERO
    | Token.FIXED_CTRL_WRITE
)
_AMD, _INTEL = "AuthenticAMD", "GenuineIntel"
# perf core's own code, in the context of the thread or of a function called on this CPU.
_CORE = frozenset({"ipi", "context_switch", "other"})
_BUT_PMI = _CORE | {"tick", "mux_timer", "rdpmc"}
_NMI_GUARD, _VECTOR = frozenset({"nmi_guard"}), frozenset({"dedicated_vector"})
# What accesses do to a guest's state that is on: name of the rule, consequence, accesses; and those
# of global control: vendor, whether a VM entry follows.
_TOUCHES = (
    ("read", "host_reads_guest", _COUNT_READS),
    ("program", "guest_counting_broken", _PROGRAMS),
    ("status", "guest_overflow_lost", Token.STATUS_CLEAR),
)
_CONTROL = (
    ("control-amd", "guest_control_replaced", _AMD, True),
    ("control-amd-put", "undone_by_the_put", _AMD, False),
    ("control-intel", "guest_counts_host", _INTEL, None),
)
_UNTOLD = "k73v-hostperf-untold, k73s-hostperf-untold"

# On the side of a switch that leaves, counters are cleared with the change of the mm, when KVM's
# notifier has put the state that perf met before: facts/x86.md 1.2, Scheduling order.
AFTER_THE_PUT = _CLEARS

# suppressed: the host does not do it; late: an event that was started counts from the put on;
# persists: it reaches the registers though perf is told; touches: perf is not told and does it;
# new: the recorded placement kept it from happening.
CAUSES = ("suppressed", "late", "persists", "touches", "new")


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table. None: any.

    contexts: of the episode. any_of, none_of: tokens of its accesses. entry_follows: whether a VM
    entry of that vCPU comes before its state is put. met_as_recorded: whether the recorded kernel
    had a guest's state on, too, so that the recorded accesses are what happens there. without,
    having: guards that the design lacks, or has, all of them. in_swap: it fell between the first
    and the last access of a recorded swap. shown: by which recordings; "" is derived.
    """

    name: str
    told: bool
    cause: str
    consequence: str
    contexts: frozenset[str] | None = None
    any_of: Token | None = None
    none_of: Token | None = None
    vendor: str | None = None
    entry_follows: bool | None = None
    met_as_recorded: bool | None = None
    without: frozenset[str] = frozenset()
    having: frozenset[str] = frozenset()
    in_swap: bool | None = None
    shown: str = ""


RULES: tuple[Rule, ...] = (
    # Told. x86-moved: perf_event_task_tick ran 296 and 272 times while loaded and touched nothing;
    # no sampling NMI came.
    Rule(
        "told-tick", True, "suppressed", "nothing_to_adjust", frozenset({"tick"}),
        shown="k73v-hostperf, k73s-hostperf",
    ),
    Rule("told-mux", True, "suppressed", "host_rotation_waits", frozenset({"mux_timer"})),
    Rule(
        "told-pmi", True, "suppressed", "host_sample_lost", frozenset({"nmi"}), having=_NMI_GUARD,
        shown="k73v-hostperf, k73s-hostperf",
    ),
    # Whether its handler returns at once or not: an event that is off has no sample.
    Rule(
        "told-pmi-off", True, "suppressed", "host_sample_lost", frozenset({"nmi"}),
        met_as_recorded=False, without=_NMI_GUARD,
    ),
    Rule("told-rdpmc", True, "suppressed", "host_reads_old_count", frozenset({"rdpmc"})),
    Rule(
        "told-read", True, "suppressed", "host_reads_old_count", _CORE, _COUNT_READS,
        _GLOBAL | _PROGRAMS,
    ),
    Rule("told-start", True, "late", "host_event_starts_late", frozenset({"ipi"}), _STARTS),
    Rule(
        "told-control-amd", True, "persists", "guest_control_replaced", _CORE, _GLOBAL,
        vendor=_AMD, entry_follows=True, shown="k73s-hostperf",
    ),
    Rule(
        "told-control-amd-put", True, "persists", "undone_by_the_put", _CORE, _GLOBAL,
        vendor=_AMD, entry_follows=False, shown="k73v-hostperf, k73s-hostperf",
    ),
    Rule(
        "told-control-intel", True, "persists", "guest_counts_host", _CORE, _GLOBAL,
        vendor=_INTEL,
    ),
    # Whatever stands beside it: a stop in the same context toggles global control, too.
    Rule("told-clear", True, "persists", "guest_counter_cleared", _CORE, _CLEARS),
    # Told, but the handler does not look whose state is on: an NMI that no event of its own
    # brought comes under every design, and so does one that came while a guest's state was on. Of
    # the former, global control is what the handler toggles around its look at the status.
    *(
        Rule(
            f"told-{name}-no-nmi-guard", True, "touches", consequence, frozenset({"nmi"}), tokens,
            none_of, vendor, follows, met, _NMI_GUARD,
        )
        for name, consequence, tokens, none_of, vendor, follows, met in (
            *(
                (f"stray-{name}", consequence, _GLOBAL, Token.STATUS_CLEAR, vendor, follows, False)
                for name, consequence, vendor, follows in _CONTROL
            ),
            *((name, what, tokens, None, None, None, True) for name, what, tokens in _TOUCHES),
            *(
                (name, consequence, _GLOBAL, None, vendor, follows, True)
                for name, consequence, vendor, follows in _CONTROL
            ),
        )
    ),
    # A guest's overflow that has no vector of its own is an NMI, be perf told or not.
    Rule(
        "told-guest-pmi-no-dedicated-vector", True, "new", "pmi_misdelivered",
        frozenset({"guest_pmi"}), without=_VECTOR,
    ),
    Rule(
        "told-guest-pmi-no-nmi-guard", True, "new", "guest_overflow_lost",
        frozenset({"guest_pmi"}), without=_VECTOR | _NMI_GUARD,
    ),
    # Untold. While a guest's state is on, the host's counters are not: none of its own can
    # overflow, so a PMI of the host's is a lost sample; what comes instead is the guest's.
    Rule(
        "untold-host-pmi", False, "suppressed", "host_sample_lost", frozenset({"nmi"}),
        met_as_recorded=False,
    ),
    Rule(
        "untold-host-pmi-nmi-guard", False, "suppressed", "host_sample_lost", frozenset({"nmi"}),
        met_as_recorded=True, having=_NMI_GUARD,
    ),
    Rule(
        "untold-guest-pmi", False, "new", "pmi_misdelivered", frozenset({"guest_pmi"}),
        without=_VECTOR, shown=_UNTOLD,
    ),
    Rule(
        "untold-pmi", False, "touches", "pmi_misdelivered", frozenset({"nmi"}),
        met_as_recorded=True, without=_NMI_GUARD, shown=_UNTOLD,
    ),
    *(
        Rule(
            f"untold-{name}{word}", False, "touches", consequence, contexts, tokens, vendor=vendor,
            entry_follows=follows, met_as_recorded=met, without=without,
            shown="" if vendor == _INTEL else _UNTOLD,
        )
        for word, contexts, met, without in (
            ("", _BUT_PMI, None, frozenset[str]()),
            ("-pmi", frozenset({"nmi"}), True, _NMI_GUARD),
        )
        for name, consequence, tokens, vendor, follows in (
            *((name, what, tokens, None, None) for name, what, tokens in _TOUCHES),
            *((name, what, _GLOBAL, vendor, follows) for name, what, vendor, follows in _CONTROL),
        )
    ),
    # With interrupts on, perf may run between two writes of one swap, when the registers are half
    # the guest's and half the host's, and nothing tells it so yet.
    *(
        Rule(
            f"{word}-no-irq-off", told, "touches", "swap_interrupted", _BUT_PMI, in_swap=True,
            without=frozenset({"irq_off"}),
        )
        for word, told in (("told", True), ("untold", False))
    ),
)  # fmt: skip
CONSEQUENCES = tuple(dict.fromkeys(rule.consequence for rule in RULES))
