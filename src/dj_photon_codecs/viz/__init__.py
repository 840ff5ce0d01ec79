"""Pictures without a plotting library: the photon transfer curve as SVG or as text, a frame as PNG.

Nothing on the two ways imports this room; a notebook's card and the command line do, when they draw.
"""

from .curve import transfer_curve_svg, transfer_curve_text
from .picture import frame_png

__all__ = ["frame_png", "transfer_curve_svg", "transfer_curve_text"]
