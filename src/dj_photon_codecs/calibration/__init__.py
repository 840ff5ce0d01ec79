"""Noise models: measured from the movie itself (photon transfer), or given by the user."""

from .estimate import calibrate
from .model import Calibration

__all__ = ["Calibration", "calibrate"]
