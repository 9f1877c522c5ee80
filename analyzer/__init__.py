"""What would each placement of the guest-PMU swap have cost, blinded and broken on this host?"""

import os

__version__ = "0.1.0"

# Arrow reads this once, when it is loaded. Its own allocator keeps three times what ingest has in
# use (bench/run.py: 30 MB more at the peak) and is no faster here.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
