"""Which token is an access? By its address, operation and value."""

from __future__ import annotations

import numpy as np

from analyzer.arch.x86 import marks, msrs
from analyzer.arch.x86.swaps import Token
from analyzer.jit import helper
from analyzer.readers.register_hash import SHIFT_OF_OP, find, register_hash
from analyzer.timeline import kernels as k

__all__ = ["Tokens", "token_of"]

READ, WRITE, RDPMC = msrs.READ, msrs.WRITE, msrs.RDPMC
RDPMC_SHIFT = int(SHIFT_OF_OP[RDPMC])
LVTPC_HOST, LVTPC_GUEST = int(Token.LVTPC_HOST), np.int64(Token.LVTPC_GUEST)
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
# Roles whose accesses belong to whatever burst they stand in, and decide nothing.
_BESIDE = ("pebs", "ds_area", "lbr", "extra_reg")
_TABLE = np.zeros((len(msrs.ROLES) + 1, 3, 2), np.int32)
for (_role, _op), _pair in _TOKENS.items():
    _TABLE[msrs.ROLES.index(_role), _op] = [int(token) for token in _pair]
for _role in _BESIDE:
    _TABLE[msrs.ROLES.index(_role)] = int(_T.OTHER)


class Tokens:
    """Tokens of one vendor's registers, by place in readers.register_hash: key int64[m]; token
    int32[m, 3, 2] by operation and whether the value is 0, 0: no core PMU register; index int64[m],
    0 where the register is none of several."""

    def __init__(self, vendor: str | None) -> None:
        registers = register_hash(vendor)
        self.key = registers.key
        self.token = _TABLE[registers.role]
        self.index = np.maximum(registers.index, 0).astype(np.int64)


@helper
def token_of(key, tokens, indexes, code, address, value):  # type: ignore[no-untyped-def]
    """Return token and index of one access: its code, and the columns of Tokens."""
    op = WRITE if code == k.MSR_WRITE else (READ if code == k.MSR_READ else RDPMC)
    place = find(key, address + (RDPMC_SHIFT if op == RDPMC else 0))
    token = tokens[place, op, 1 if value == 0 else 0]
    if token & LVTPC_HOST and value & 0xFF == marks.GUEST_VECTOR:
        return LVTPC_GUEST, indexes[place]
    return np.int64(token), indexes[place]
