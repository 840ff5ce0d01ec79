"""The command ``dj-photon``: the library's functions for a shell.

Each command imports what it needs when it runs, so that help and completion take milliseconds.
"""

from .app import main

__all__ = ["main"]
