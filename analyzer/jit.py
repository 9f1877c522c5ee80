"""How is a function compiled that only kernels call?

A recording's first run compiles every kernel, and numba's time for that goes by the functions it
makes, less by what the optimizer does with them. So helpers have no way in but from kernels. numba
also compiles a helper anew for every constant that is passed to it as a plain int or bool:
constants that are arguments in many places are numpy's numbers therefore, and rows of narrow
columns are widened before they go on.
"""

from __future__ import annotations

import numba

__all__ = ["helper"]

helper = numba.njit(  # type: ignore[call-overload]
    no_cpython_wrapper=True, no_cfunc_wrapper=True
)
