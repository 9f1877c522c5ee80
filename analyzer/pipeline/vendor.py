"""Whose CPU was recorded, and which names did the reader get wrong before it was known?

In order: isa of kvm_exit, the MSRs of a core PMU, what the user says. A recording knows better than
a flag that was typed for another one, so the flag only fills a silence.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analyzer.arch import Family
from analyzer.arch.x86.msrs import vendor_of_addresses
from analyzer.readers.registers import name_again, names_differ
from analyzer.store import StoreWriter
from analyzer.trouble import Trouble

__all__ = ["VendorEvidence"]

# Others build VMX and SVM too (Zhaoxin, Hygon); their swaps are those of the one they follow.
_OF_ISA = {"VMX": "GenuineIntel", "SVM": "AuthenticAMD"}


class VendorEvidence:
    """Collects what tells the vendor, a batch at a time; a few numbers, however long it lasts."""

    def __init__(self) -> None:
        self._isas: set[str] = set()
        self._msrs: set[int] = set()
        self._indexes: set[int] = set()

    def take(self, tables: dict[str, pa.RecordBatch]) -> None:
        """Look at one batch's tables."""
        if "vm_exit" in tables:
            isas = tables["vm_exit"].column("isa")
            self._isas.update(isa for isa in isas.unique().to_pylist() if isa in _OF_ISA)
        if "pmu_access" in tables:
            self._take_accesses(tables["pmu_access"])

    def _take_accesses(self, rows: pa.RecordBatch) -> None:
        # One pass over one number for both, as a batch has very few different ones.
        op, address, failed = (rows.column(name) for name in ("op", "address", "failed"))
        words = op.dictionary.to_pylist()
        wanted = pc.is_valid(address) if address.null_count else None
        if pc.any(failed).as_py():
            # A foreign MSR that is only probed fails, and rdpmc's indexes are no MSR numbers.
            held = pc.or_(pc.invert(pc.fill_null(failed, False)), pc.equal(op, "rdpmc"))
            wanted = held if wanted is None else pc.and_(wanted, held)
        if wanted is not None:
            op, address = op.filter(wanted), address.filter(wanted)
        codes = op.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        found = pa.array(address.to_numpy(zero_copy_only=False).astype(np.int64) << 2 | codes)
        for number in found.unique().to_pylist():
            into = self._indexes if words[number & 3] == "rdpmc" else self._msrs
            into.add(number >> 2)

    def vendor(self, family: Family | None, told: str | None, trouble: Trouble) -> str | None:
        """Return the vendor (off x86 the family's name), None where nothing tells.

        Where `told` contradicts the recording that is counted, and the recording stands.
        """
        shown = self._shown(family)
        if told is not None and shown is not None and told != shown:
            trouble.add("vendor_contradicted", 1, f"--vendor {told}, recorded {shown}")
        return shown or told

    def correct_names(self, vendor: str | None, writer: StoreWriter) -> None:
        """Name the registers of pmu_access again where the vendor gives another name to one."""
        of_x86 = vendor if vendor in _OF_ISA.values() else None
        if self._indexes and names_differ(self._indexes, of_x86):
            writer.rewrite("pmu_access", lambda rows: name_again(rows, of_x86))

    def _shown(self, family: Family | None) -> str | None:
        if family is not None and family.name != "x86":
            return family.name
        vendors = {_OF_ISA[isa] for isa in self._isas}
        # Both in one recording prove nothing: then the registers have to tell.
        if len(vendors) == 1:
            return vendors.pop()
        return vendor_of_addresses(np.array(sorted(self._msrs), np.int64))
