"""How is the program called from a terminal?"""

from analyzer.cli.app import main

__all__ = ["main"]
