"""What happens when host perf meets a guest's PMU state? Operation and circumstances to effect.

One declared table. Each episode of host perf that falls into a guest's stay is held against every
rule; each rule that fits gives one row. `shown` names the recordings that have it, all AMD's; a
rule that none shows is derived from the source: facts/x86.md 5.3 (Linux 7.3.4).

Where perf is told at the boundary its events are off: what the recording shows it doing would not
happen, except what perf core does around any change of its events, whether one is on or not: it
writes global control to 0 and back to its own mask. Untold, it goes on as recorded.
"""

from __future__ import annotations

from dataclasses import dataclass

from analyzer.arch.x86.swaps import Token

__all__ = ["CAUSES", "CONSEQUENCES", "RULES", "Rule"]

_GLOBAL = Token.GLOBAL_OFF | Token.GLOBAL_ON
_COUNT_READS = Token.COUNTER_READ | Token.FIXED_READ
_STARTS = Token.COUNTER_ZERO | Token.COUNTER_WRITE | Token.FIXED_ZERO | Token.FIXED_WRITE
_PROGRAMS = (
    _STARTS
    | Token.SELECTOR_ZERO
    | Token.SELECTOR_WRITE
    | Token.FIXED_CTRL_ZERO
    | Token.FIXED_CTRL_WRITE
)
_AMD, _INTEL = "AuthenticAMD", "GenuineIntel"
# perf core's own code, in the context of the thread or of a function called on this CPU.
_CORE = frozenset({"ipi", "context_switch", "other"})
_BUT_PMI = _CORE | {"tick", "mux_timer", "rdpmc"}
_UNTOLD = "k73v-hostperf-untold, k73s-hostperf-untold"

# suppressed: the host does not do it; late: an event that was started counts from the put on;
# persists: it reaches the registers though perf is told; touches: perf is not told and does it;
# new: the recorded placement kept it from happening.
CAUSES = ("suppressed", "late", "persists", "touches", "new")


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table. None: any.

    contexts: of the episode. any_of, none_of: tokens of its accesses. entry_follows: whether a VM
    entry of that vCPU comes before its state is put. met_as_recorded: whether the recorded kernel
    had a guest's state on, too, so that the recorded accesses are what happens there. shown: by
    which recordings; "" is derived.
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
        "told-pmi", True, "suppressed", "host_sample_lost", frozenset({"nmi"}),
        shown="k73v-hostperf, k73s-hostperf",
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
    # perf_clear_dirty_counters: zeroes what perf used before, without touching global control.
    Rule(
        "told-clear", True, "persists", "guest_counter_cleared", _CORE, Token.COUNTER_ZERO, _GLOBAL
    ),
    # Untold. While a guest's state is on, the host's counters are not: none of its own can
    # overflow, so a PMI of the host's is a lost sample; what comes instead is the guest's.
    Rule(
        "untold-host-pmi", False, "suppressed", "host_sample_lost", frozenset({"nmi"}),
        met_as_recorded=False,
    ),
    Rule(
        "untold-guest-pmi", False, "new", "pmi_misdelivered", frozenset({"guest_pmi"}),
        shown=_UNTOLD,
    ),
    Rule(
        "untold-pmi", False, "touches", "pmi_misdelivered", frozenset({"nmi"}),
        met_as_recorded=True, shown=_UNTOLD,
    ),
    *(
        Rule(
            f"untold-{name}{word}", False, "touches", consequence, contexts, tokens, vendor=vendor,
            entry_follows=follows, met_as_recorded=met, shown="" if vendor == _INTEL else _UNTOLD,
        )
        for word, contexts, met in (("", _BUT_PMI, None), ("-pmi", frozenset({"nmi"}), True))
        for name, consequence, tokens, vendor, follows in (
            ("read", "host_reads_guest", _COUNT_READS, None, None),
            ("program", "guest_counting_broken", _PROGRAMS, None, None),
            ("status", "guest_overflow_lost", Token.STATUS_CLEAR, None, None),
            ("control-amd", "guest_control_replaced", _GLOBAL, _AMD, True),
            ("control-amd-put", "undone_by_the_put", _GLOBAL, _AMD, False),
            ("control-intel", "guest_counts_host", _GLOBAL, _INTEL, None),
        )
    ),
)  # fmt: skip
CONSEQUENCES = tuple(dict.fromkeys(rule.consequence for rule in RULES))
