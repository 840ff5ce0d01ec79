"""Measure what storing a movie changes, both in its counts and in the results of its analysis.

>>> import numpy as np
>>> from dj_photon_codecs import Calibration
>>> from dj_photon_codecs.fidelity import fidelity_report
>>> counts = np.random.default_rng(0).poisson(20, (8, 32, 32)).astype(np.uint16)
>>> report = fidelity_report(counts, counts, calibration=Calibration.given(1.0, 0.0))
>>> report.largest_error, report.within_bound
(0.0, True)
"""

from .analysis import Analysis, Scene, analyse
from .exact import ExactErrors, exact_errors
from .measure import fidelity_report
from .report import FidelityReport, IntensityBin
from .residual import ImageResidue, Lag
from .science import ScienceReport, compare, science_report
from .scores import Agreement, Scores
from .spikes import oasis_ar1

__all__ = [
    "Agreement",
    "Analysis",
    "ExactErrors",
    "FidelityReport",
    "ImageResidue",
    "IntensityBin",
    "Lag",
    "Scene",
    "ScienceReport",
    "Scores",
    "analyse",
    "compare",
    "exact_errors",
    "fidelity_report",
    "oasis_ar1",
    "science_report",
]
