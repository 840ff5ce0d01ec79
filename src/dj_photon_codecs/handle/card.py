"""Notebook card of a movie: facts, photon transfer curve, and one frame.

Only the frame needs I/O: it reads one chunk and the index of its shard. If that fails, the card shows the reason in
place of the frame.
"""

from __future__ import annotations

import base64
from functools import partial
from html import escape

from .._threads import Group
from .._typing import AnyArray
from ..errors import CalibrationError
from ..viz import frame_png, transfer_curve_svg
from .array import PhotonArray
from .facts import movie_facts

#: Timeout [s] for the chunk, because the notebook blocks until the card is done.
_PATIENCE = 10.0

# The card inherits the text colour, so it suits light and dark pages. Styles are inline, because notebooks drop style
# sheets from saved outputs. It uses no table and no <dl>, which notebooks style, and no <svg>, which they remove from
# untrusted outputs.
_CARD = (
    "display:flex;flex-wrap:wrap;gap:16px;align-items:flex-start;width:fit-content;max-width:100%;padding:10px 14px;"
    "border:1px solid rgba(128,128,128,0.45);border-radius:6px;font-size:13px;line-height:1.5;color:inherit"
)
_FACTS = "display:grid;grid-template-columns:max-content fit-content(28em);column-gap:12px;overflow-wrap:anywhere"
_NAME = "opacity:0.65"
_TITLE = "font-weight:600;margin-bottom:4px"
_PICTURE = "display:block;width:{width}px;max-width:100%;image-rendering:pixelated;border-radius:3px"
_NO_PICTURE = (
    "box-sizing:border-box;width:240px;min-height:120px;padding:10px;border:1px dashed rgba(128,128,128,0.6);"
    "border-radius:3px;overflow-wrap:anywhere"
)
_CAPTION = "opacity:0.65;font-size:12px"

#: Colour of the curve's text and axes: readable on white and black, because an image inherits no text colour.
_GREY = "#808080"

#: Minimum size on screen of the longer side of a frame [pixels]; smaller frames are enlarged.
_SHOWN = 192


def _repr_html_(movie: PhotonArray) -> str:
    """Return the card of a movie as HTML; never raises.

    Reads the chunk that contains the middle pixel of the middle frame (and plane).
    """
    try:
        facts = [*movie_facts(movie), ("at", movie._location.label)]
        curve = _curve(movie)
    except Exception as error:  # altered or invalid metadata: show the error in the card
        return f'<div style="{_CARD}"><b>PhotonArray</b> {escape(str(error))}</div>'
    listed = "".join(f'<div style="{_NAME}">{escape(name)}</div><div>{escape(value)}</div>' for name, value in facts)
    return (
        f'<div style="{_CARD}">{_picture(movie)}<div><div style="{_TITLE}">PhotonArray</div>'
        f'<div style="{_FACTS}">{listed}</div></div>{curve}</div>'
    )


def _curve(movie: PhotonArray) -> str:
    """Return the photon transfer curve as HTML, or an empty string if none was measured."""
    try:
        noise = movie.calibration
    except CalibrationError:
        return ""
    if not noise.curve:
        return ""
    curve = base64.b64encode(transfer_curve_svg(noise, color=_GREY).encode()).decode("ascii")
    return f'<div><img alt="photon transfer curve" src="data:image/svg+xml;base64,{curve}"></div>'


def _picture(movie: PhotonArray) -> str:
    """Return the middle frame as HTML, or the reason why it is missing."""
    try:
        counts, caption = _middle(movie)
        picture = base64.b64encode(frame_png(counts)).decode("ascii")
    except Exception as error:  # store, library or decoder errors: show them in the card
        reason = str(error) or type(error).__name__
        return f'<div style="{_NO_PICTURE}">no picture: {escape(reason)}</div>'
    height, width = counts.shape
    shown = max(1, round(width * max(_SHOWN, min(256, max(counts.shape))) / max(height, width)))
    return (
        f'<div><img alt="{caption}" style="{_PICTURE.format(width=shown)}" src="data:image/png;base64,{picture}">'
        f'<div style="{_CAPTION}">{caption}</div></div>'
    )


def _middle(movie: PhotonArray) -> tuple[AnyArray, str]:
    """Return the counts (height, width) of the chunk in the middle of the movie, and a caption."""
    grid = movie._chunks.reader.grid
    if len(grid.shape) < 3:
        raise ValueError(f"an array of shape {grid.shape} has no frames")
    index = tuple(n // 2 for n in grid.shape)
    coords = tuple(i // n for i, n in zip(index, grid.chunk, strict=True))
    with Group() as group:
        try:
            counts = group.start(partial(movie._chunks.get, coords)).result(_PATIENCE).counts()
        except TimeoutError as error:
            raise TimeoutError(f"the store did not answer within {_PATIENCE:g} s") from error
    parts = [range(s.start, min(s.stop, n)) for s, n in zip(grid.region(coords), grid.shape, strict=True)]
    within = tuple(i - part.start for i, part in zip(index[:-2], parts, strict=False))
    caption = f"frame {index[0]}" + "".join(f", plane {i}" for i in index[1:-2])
    for name, part, total in zip(("rows", "columns"), parts[-2:], grid.shape[-2:], strict=True):
        if len(part) < total:
            caption += f", {name} {part.start} to {part.stop - 1}"
    return counts[within][: len(parts[-2]), : len(parts[-1])], caption
