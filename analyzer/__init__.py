"""What would each placement of the guest-PMU swap have cost, blinded and broken on this host?"""

__version__ = "0.1.0"
