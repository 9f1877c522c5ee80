"""Each family's rules of order are there, and machines find their family."""

from __future__ import annotations

import pytest

from analyzer.arch import FAMILIES, family_of_events, family_of_machine
from analyzer.arch.x86 import marks, msrs, vectors


@pytest.mark.parametrize(
    ("machine", "name"),
    [("x86_64", "x86"), ("i686", "x86"), ("aarch64", "arm64"), ("arm64\n", "arm64")],
)
def test_machine_finds_its_family(machine: str, name: str) -> None:
    family = family_of_machine(machine)
    assert family is not None
    assert family is FAMILIES[name]


@pytest.mark.parametrize("machine", ["riscv64", "loongarch64", "ppc64le", "s390x", "", None])
def test_machine_without_rules_has_no_family(machine: str | None) -> None:
    assert family_of_machine(machine) is None


@pytest.mark.parametrize(
    ("names", "name"),
    [
        ({"kvm_entry", "kvm_exit", "rdpmc"}, "x86"),
        ({"sched_switch", "kvm_timer_save_state"}, "arm64"),
        ({"kvm_entry", "kvm_exit", "sched_switch"}, None),
        # Of two machines in one file neither.
        ({"kvm_msr", "kvm_wfx_arm64"}, None),
        (set(), None),
    ],
)
def test_events_of_one_family_alone_tell_it(names: set[str], name: str | None) -> None:
    family = family_of_events(names)
    assert (None if family is None else family.name) == name


# facts/other-arch.md 0.1: late everywhere but on x86, where old AMD kernels give themselves away.
def test_only_x86_may_trace_its_exit_in_time() -> None:
    late = {name: family.exit_is_late for name, family in FAMILIES.items()}
    assert late == {"x86": "if_seen", "arm64": "always"}
    assert FAMILIES["arm64"].hidden_reentries
    assert FAMILIES["arm64"].timer_marks
    assert not FAMILIES["arm64"].gap_events


def test_way_in_is_shorter_than_a_gap_and_holds_no_interrupt() -> None:
    assert marks.WAY_IN_EVENTS < marks.GAP_EVENTS
    for family in FAMILIES.values():
        assert family.way_in_once_events <= family.way_in_events
        for name in family.gap_events | family.way_in_events:
            assert not name.startswith(("irq_", "softirq_", "sched_switch", "local_timer"))


def test_every_mark_is_in_the_catalogue() -> None:
    names = {msrs.READ: "read", msrs.WRITE: "write"}
    for mark in marks.MARKS:
        register = msrs.lookup(names[mark.op], mark.address, mark.vendor)
        assert register is not None
        assert register.vendor == mark.vendor


@pytest.mark.parametrize(
    ("value", "is_guest", "is_host"),
    [(0xF5, True, False), (0x100F5, True, False), (0x400, False, True), (0x10400, False, False)],
)
def test_lvtpc_value_says_whose_pmi_it_is(value: int, is_guest: bool, is_host: bool) -> None:
    assert marks.GUEST_LVTPC.fits(msrs.WRITE, 0x834, value) is is_guest
    assert marks.HOST_LVTPC.fits(msrs.WRITE, 0x834, value) is is_host
    assert not marks.GUEST_LVTPC.fits(msrs.READ, 0x834, value)


def test_addresses_of_marks_have_the_roles_that_the_marks_rely_on() -> None:
    roles = {
        marks.LOOP_MARK_MSR: "debugctl",
        marks.LVTPC_MSR: "lvtpc",
        marks.AMD_STATUS_SET: "global_status_set",
        marks.AMD_GLOBAL_CTL: "global_ctrl",
        marks.INTEL_GLOBAL_STATUS: "global_status",
    }
    for address, role in roles.items():
        register = msrs.lookup("read", address)
        assert register is not None
        assert register.role == role
    assert vectors.BY_NUMBER[marks.GUEST_VECTOR].name == "guest_mediated_pmi"


def test_mark_without_value_fits_any_value() -> None:
    assert marks.AMD_LOAD.fits(msrs.WRITE, 0xC0000303, 2**63)
    assert marks.INNER_LOOP_BEGIN.fits(msrs.READ, 0x1D9, 0x4000)


@pytest.mark.parametrize(
    ("number", "event"),
    [
        (236, "local_timer"),
        (253, "reschedule"),
        (252, "call_function"),
        (251, "call_function_single"),
        (246, "irq_work"),
        (244, "deferred_error_apic"),
        (249, "threshold_apic"),
        (250, "thermal_apic"),
    ],
)
def test_vector_events_have_their_numbers(number: int, event: str) -> None:
    assert vectors.BY_EVENT[event] is vectors.BY_NUMBER[number]
    assert vectors.vector_name(number) == event


def test_vector_without_event_or_name_still_prints() -> None:
    assert vectors.vector_name(245) == "guest_mediated_pmi"
    assert vectors.BY_NUMBER[245].event is None
    assert vectors.vector_name(0x31) == "0x31"
    assert len(vectors.BY_NUMBER) == len(vectors.VECTORS)
