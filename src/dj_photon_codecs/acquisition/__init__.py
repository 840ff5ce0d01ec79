"""Write movies during acquisition, and recover movies after a crash."""

from __future__ import annotations

from .frame_data import FrameData, read_frame_data
from .recovery import plan_recovery, recover_movie, recover_row
from .status import AcquisitionStatus, Recovery
from .writer import PhotonWriter

__all__ = [
    "AcquisitionStatus",
    "FrameData",
    "PhotonWriter",
    "Recovery",
    "plan_recovery",
    "read_frame_data",
    "recover_movie",
    "recover_row",
]
