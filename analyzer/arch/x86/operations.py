"""Which operation of a cost file is an access of the msr events? By operation and register's role.

Source: facts/costs.md section 2. Registers that no cost file prices by themselves (PEBS, LBR,
offcore, DEBUGCTL) are taken as what is nearest, an RDMSR or a selector's WRMSR: 7.3's swap touches
none of them, host perf's half may.
"""

from __future__ import annotations

__all__ = ["OPERATIONS", "OPERATIONS_OF_OTHERS", "OPERATION_NAMES"]

# (op of pmu_access, role) -> operation.
OPERATIONS = {
    ("rdpmc", "counter"): "counter_read",
    ("rdpmc", "fixed_counter"): "counter_read",
    ("read", "counter"): "counter_read_msr",
    ("read", "fixed_counter"): "counter_read_msr",
    ("read", "selector"): "counter_read_msr",
    ("read", "fixed_ctrl"): "status_read",
    ("read", "global_ctrl"): "status_read",
    ("read", "global_status"): "status_read",
    ("write", "counter"): "counter_write",
    ("write", "fixed_counter"): "counter_write",
    ("write", "selector"): "selector_write",
    ("write", "fixed_ctrl"): "fixed_ctrl_write",
    ("write", "global_ctrl"): "global_ctrl_write",
    ("write", "global_status"): "status_write",
    ("write", "global_status_reset"): "status_write",
    ("write", "global_status_set"): "status_write",
    ("write", "lvtpc"): "lvtpc_write_x2apic",
}
OPERATIONS_OF_OTHERS = {
    "rdpmc": "counter_read",
    "read": "counter_read_msr",
    "write": "selector_write",
}
# What their numbers in columns mean.
OPERATION_NAMES = tuple(sorted({*OPERATIONS.values(), *OPERATIONS_OF_OTHERS.values()}))
