"""Draw without a plotting library: the photon transfer curve as SVG or text, a frame as PNG.

Only the notebook display and the command line import this package, and only when they draw.
"""

from .curve import transfer_curve_svg, transfer_curve_text
from .picture import frame_png

__all__ = ["frame_png", "transfer_curve_svg", "transfer_curve_text"]
