"""From the microscope to the store: a movie written while it is acquired, and what a killed process left of one."""

from __future__ import annotations

from .recovery import recover_movie
from .writer import PhotonWriter

__all__ = ["PhotonWriter", "recover_movie"]
