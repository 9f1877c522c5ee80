"""What comes of one episode of host perf that meets a guest's state? By plain if-statements.

Written again from what is known of Linux 7.3.4's perf core and of x86's PMU drivers (design.md
section 5), to be held against the rules of analyzer.arch.x86.conflicts and what applies them.
"""

from __future__ import annotations

from dataclasses import dataclass

from analyzer.arch.x86.swaps import Token
from analyzer.timeline.attribution.words import Context
from tests.reference_replay import Meeting

__all__ = ["Episode", "Row", "conflict_rows", "effects"]

# ts, cpu, vcpu, episode, context, evidence, cause, consequence, entry_follows, until.
Row = tuple[int, int, int, int | None, str, str, str, str, bool, int | None]
WORDS = {
    Context.TICK: "tick", Context.MUX_TIMER: "mux_timer", Context.IPI: "ipi", Context.NMI: "nmi",
    Context.SWITCH_OUT: "context_switch", Context.SWITCH_IN: "context_switch",
    Context.RDPMC: "rdpmc", Context.OTHER: "other", Context.GUEST_PMI: "guest_pmi",
}  # fmt: skip


@dataclass(frozen=True)
class Episode:
    """What the recording shows: context, evidence, tokens of its accesses, and whether the recorded
    kernel had a guest's state on as well, and whether it fell into a recorded swap."""

    context: int
    evidence: str
    operations: int
    met: bool
    in_swap: bool = False


ALL = ("irq_off", "nmi_guard", "dedicated_vector")


def by_vendor(vendor: str | None, entry: bool) -> set[str]:
    """Global control written behind the guest's back."""
    if vendor == "GenuineIntel":
        return {"touches guest_counts_host"}
    if vendor == "AuthenticAMD":
        return {f"touches {'guest_control_replaced' if entry else 'undone_by_the_put'}"}
    return set()


def unguarded_nmi(done: Token, vendor: str | None, entry: bool, met: bool) -> set[str]:
    """Perf is told, but its NMI handler does not look whose state is on."""
    toggles = bool(done & (Token.GLOBAL_OFF | Token.GLOBAL_ON))
    if not met:
        # Its events are off. If it acknowledged no overflow, another source brought this NMI, and
        # will bring it: the handler turns counting off and on around its look at the status.
        stray = toggles and not done & Token.STATUS_CLEAR
        return {"suppressed host_sample_lost"} | (by_vendor(vendor, entry) if stray else set())
    found = by_vendor(vendor, entry) if toggles else set()
    if done & (Token.COUNTER_READ | Token.FIXED_READ):
        found.add("touches host_reads_guest")
    if done & (
        Token.COUNTER_ZERO | Token.COUNTER_WRITE | Token.FIXED_ZERO | Token.FIXED_WRITE
        | Token.SELECTOR_ZERO | Token.SELECTOR_WRITE | Token.FIXED_CTRL_ZERO
        | Token.FIXED_CTRL_WRITE
    ):  # fmt: skip
        found.add("touches guest_counting_broken")
    if done & Token.STATUS_CLEAR:
        found.add("touches guest_overflow_lost")
    return found


def told_effects(
    context: int, done: Token, vendor: str | None, entry: bool, met: bool, guard: tuple[str, ...]
) -> set[str]:
    """Perf knows: its events are off while the guest's state is on."""
    # The tick finds no event to adjust, rotation no event to rotate, and an overflow of the host's
    # cannot be; who reads by himself gets the old count.
    if context == Context.TICK:
        return {"suppressed nothing_to_adjust"}
    if context == Context.MUX_TIMER:
        return {"suppressed host_rotation_waits"}
    if context == Context.NMI:
        if "nmi_guard" not in guard:
            return unguarded_nmi(done, vendor, entry, met)
        return {"suppressed host_sample_lost"}
    if context == Context.RDPMC:
        return {"suppressed host_reads_old_count"}
    if context == Context.GUEST_PMI:
        if "dedicated_vector" in guard:
            return set()
        # An NMI that nobody claims; and whose overflow perf's handler acknowledges, if it may.
        lost = {"new guest_overflow_lost"} if "nmi_guard" not in guard else set()
        return {"new pmi_misdelivered"} | lost
    # What is left is perf core's code in a thread or in a function called on this CPU.
    found = set()
    toggles = bool(done & (Token.GLOBAL_OFF | Token.GLOBAL_ON))
    reads = bool(done & (Token.COUNTER_READ | Token.FIXED_READ))
    starts = bool(done & (Token.COUNTER_WRITE | Token.FIXED_WRITE))
    clears = bool(done & (Token.COUNTER_ZERO | Token.FIXED_ZERO))
    selects = bool(done & (Token.SELECTOR_ZERO | Token.SELECTOR_WRITE))
    selects = selects or bool(done & (Token.FIXED_CTRL_ZERO | Token.FIXED_CTRL_WRITE))
    # A plain read finds the event inactive. Beside anything else it is part of a stop.
    if reads and not (toggles or starts or clears or selects):
        found.add("suppressed host_reads_old_count")
    # An event that is started writes its counter, and never with 0: it begins to count at the put.
    if context == Context.IPI and starts:
        found.add("late host_event_starts_late")
    # perf core's disable and enable around any change goes through. The next entry restores
    # Intel's control but not the counts; AMD's value stays, unless the put comes first.
    if toggles and vendor == "GenuineIntel":
        found.add("persists guest_counts_host")
    if toggles and vendor == "AuthenticAMD" and entry:
        found.add("persists guest_control_replaced")
    if toggles and vendor == "AuthenticAMD" and not entry:
        found.add("persists undone_by_the_put")
    # perf clears what its events left in counters, and only then writes 0.
    if clears:
        found.add("persists guest_counter_cleared")
    return found


def untold_effects(
    context: int, done: Token, vendor: str | None, entry: bool, met: bool, guard: tuple[str, ...]
) -> set[str]:
    """Perf goes on as if the registers were its own."""
    if context == Context.GUEST_PMI:
        return set() if "dedicated_vector" in guard else {"new pmi_misdelivered"}
    if context == Context.NMI and (not met or "nmi_guard" in guard):
        # The host's counters are off the CPU: none can overflow.
        return {"suppressed host_sample_lost"}
    found = set()
    if context == Context.NMI:
        found.add("touches pmi_misdelivered")
    if done & (Token.COUNTER_READ | Token.FIXED_READ):
        found.add("touches host_reads_guest")
    for written in (
        Token.COUNTER_ZERO, Token.COUNTER_WRITE, Token.FIXED_ZERO, Token.FIXED_WRITE,
        Token.SELECTOR_ZERO, Token.SELECTOR_WRITE, Token.FIXED_CTRL_ZERO, Token.FIXED_CTRL_WRITE,
    ):  # fmt: skip
        if done & written:
            found.add("touches guest_counting_broken")
    if done & Token.STATUS_CLEAR:
        found.add("touches guest_overflow_lost")
    if done & Token.GLOBAL_OFF or done & Token.GLOBAL_ON:
        if vendor == "GenuineIntel":
            found.add("touches guest_counts_host")
        elif vendor == "AuthenticAMD" and entry:
            found.add("touches guest_control_replaced")
        elif vendor == "AuthenticAMD":
            found.add("touches undone_by_the_put")
    return found


def effects(
    told: bool, context: int, operations: int, vendor: str | None, entry: bool, met: bool,
    guard: tuple[str, ...] = ALL, in_swap: bool = False,
) -> set[str]:  # fmt: skip
    """Return "cause consequence" of each thing that comes of it."""
    done = Token(operations)
    if context == Context.SWITCH_OUT:
        # In a switch perf clears counters with the change of the mm; KVM's notifier has put before.
        done &= ~(Token.COUNTER_ZERO | Token.FIXED_ZERO)
    of = told_effects if told else untold_effects
    found = of(context, done, vendor, entry, met, guard)
    if in_swap and "irq_off" not in guard and context not in {Context.NMI, Context.GUEST_PMI}:
        found.add("touches swap_interrupted")
    return found


def conflict_rows(
    meetings: list[Meeting], episodes: list[Episode], told: bool, vendor: str | None,
    guard: tuple[str, ...] = ALL,
) -> list[Row]:  # fmt: skip
    """Return the rows of all meetings, sorted."""
    rows: list[Row] = []
    for m in meetings:
        one = Episode(Context.GUEST_PMI, "observed", 0, False)
        if m.episode is not None:
            one = episodes[m.episode]
            assert one.context == m.context
        if m.is_over:
            entry, until = False, m.ts  # the switch that perf acts in takes the state off
        else:
            entry = m.stay.entries > m.entries_before
            until = m.stay.end if m.stay.is_put else None
        for effect in effects(
            told, one.context, one.operations, vendor, entry, one.met, guard, one.in_swap
        ):
            cause, consequence = effect.split()
            rows.append(
                (
                    m.ts, m.cpu, m.stay.vcpu, m.episode, WORDS[Context(one.context)], one.evidence,
                    cause, consequence, entry, until,
                )
            )  # fmt: skip
    return sorted(rows, key=repr)
