"""Which token is an access? Address, operation and value of a chunk's events, classed at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from analyzer.arch.x86 import marks, msrs
from analyzer.arch.x86.swaps import Token
from analyzer.timeline.marks import Code

__all__ = ["CORE_ROLES", "tokens_of"]

Array = np.ndarray[Any, Any]
_OPS = {int(Code.MSR_READ): msrs.READ, int(Code.MSR_WRITE): msrs.WRITE, int(Code.RDPMC): msrs.RDPMC}
# (role, op) -> token where the value is not zero, token where it is.
_T = Token
_TOKENS = {
    ("global_ctrl", msrs.WRITE): (_T.GLOBAL_ON, _T.GLOBAL_OFF),
    ("global_ctrl", msrs.READ): (_T.GLOBAL_READ, _T.GLOBAL_READ),
    ("global_status", msrs.READ): (_T.STATUS_READ, _T.STATUS_READ),
    ("global_status", msrs.WRITE): (_T.STATUS_CLEAR, _T.STATUS_CLEAR),
    ("global_status_reset", msrs.WRITE): (_T.STATUS_CLEAR, _T.STATUS_CLEAR),
    ("global_status_set", msrs.WRITE): (_T.STATUS_SET, _T.STATUS_SET),
    ("counter", msrs.WRITE): (_T.COUNTER_WRITE, _T.COUNTER_ZERO),
    ("counter", msrs.READ): (_T.COUNTER_READ, _T.COUNTER_READ),
    ("counter", msrs.RDPMC): (_T.COUNTER_READ, _T.COUNTER_READ),
    ("selector", msrs.WRITE): (_T.SELECTOR_WRITE, _T.SELECTOR_ZERO),
    ("selector", msrs.READ): (_T.SELECTOR_READ, _T.SELECTOR_READ),
    ("fixed_counter", msrs.WRITE): (_T.FIXED_WRITE, _T.FIXED_ZERO),
    ("fixed_counter", msrs.READ): (_T.FIXED_READ, _T.FIXED_READ),
    ("fixed_counter", msrs.RDPMC): (_T.FIXED_READ, _T.FIXED_READ),
    ("fixed_ctrl", msrs.WRITE): (_T.FIXED_CTRL_WRITE, _T.FIXED_CTRL_ZERO),
    ("lvtpc", msrs.WRITE): (_T.LVTPC_HOST, _T.LVTPC_HOST),
}
CORE_ROLES = frozenset(role for role, _ in _TOKENS)
# Roles whose accesses belong to whatever burst they stand in, and decide nothing.
_BESIDE = ("pebs", "ds_area", "lbr", "extra_reg")
_TABLE = np.zeros((len(msrs.ROLES) + 1, 3, 2), np.int64)
for (_role, _op), _pair in _TOKENS.items():
    _TABLE[msrs.ROLES.index(_role), _op] = [int(token) for token in _pair]
for _role in _BESIDE:
    _TABLE[msrs.ROLES.index(_role)] = int(_T.OTHER)
_LVTPC = msrs.ROLES.index("lvtpc")


def tokens_of(
    code: Array, first: Array, second: Array, vendor: str | None
) -> tuple[Array, Array, Array]:
    """Return rows int64[k] of the accesses, token int64[k] (0: no core PMU register), index
    int64[k] (0 where the register is none of several).

    code uint8[n], first (address) and second (value) int64[n] of a chunk.
    """
    rows = np.flatnonzero(np.isin(code, list(_OPS)))
    op = np.zeros(256, np.int8)
    for number, operation in _OPS.items():
        op[number] = operation
    ops = op[code[rows]]
    address, value = first[rows], second[rows]
    role, _, index = msrs.classify(ops, address, vendor)
    token = _TABLE[role, ops, (value == 0).astype(np.int8)]
    guest = (role == _LVTPC) & (value & 0xFF == marks.GUEST_VECTOR) & (token != 0)
    token[guest] = int(Token.LVTPC_GUEST)
    return rows, token, np.maximum(index, 0).astype(np.int64)
