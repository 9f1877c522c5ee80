"""How are kernels compiled, and the functions that only kernels call?

None of them allocates, so none keeps count of references to arrays: numba's counts are atomic, and
were four fifths of attribution's time. (numba's own sorts leave them out with the same option.)

A recording's first run compiles every kernel, and numba's time for that goes by the functions it
makes, less by what the optimizer does with them. So helpers have no way in but from kernels. numba
also compiles a helper anew for every constant that is passed to it as a plain int or bool:
constants that are arguments in many places are numpy's numbers therefore, and rows of narrow
columns are widened before they go on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

__all__ = ["helper", "kernel", "typed_kernel"]

kernel = numba.njit(cache=True, _nrt=False)  # type: ignore[call-overload]
helper = numba.njit(  # type: ignore[call-overload]
    no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False
)


def typed_kernel(signature: str) -> Callable[[Any], Any]:
    """Return the decorator of a kernel that takes these types only, and is compiled on import."""
    return numba.njit(signature, cache=True, _nrt=False)  # type: ignore[call-overload, no-any-return]
