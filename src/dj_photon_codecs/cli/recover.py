"""The command recover: finish movies whose acquisition was cut off."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from .options import PLACE, argument, command, flag, option
from .output import UNREACHABLE, USAGE, report


@command(
    "Finish movies whose acquisition was cut off.",
    argument("movies", nargs=-1, required=True),
    flag("--dry-run", "Only say what is there, and what would be lost."),
    option("--spilled", "The folder that took frames while the store failed.", type=PLACE),
)
def recover(movies: tuple[str, ...], dry_run: bool, spilled: str | None, as_json: bool) -> int:
    """Make MOVIES of what acquisitions stored before they were cut off (a crash, a power cut).

    Prints a line for each: its frames, and those lost in between. Nothing that can be read is removed. Complete movies,
    and those that are being acquired, are left unchanged. If one fails, the others are recovered all the same.

    \b
    dj-photon recover scan.zarr
    dj-photon recover --dry-run session/*.zarr
    """
    from .. import FormatError, PhotonCodecError, StorageError, plan_recovery, recover_movie
    from .places import Place, State

    found: list[dict[str, Any]] = []
    code = 0
    for path in movies:
        place = Place(path)
        label = place.location.label
        try:
            if dry_run:
                plan = plan_recovery(path, spilled=spilled)
                document, line = {"ok": True, **asdict(plan)}, str(plan)
            else:
                movie = recover_movie(path, spilled=spilled)
                document = {"ok": True, "location": label, "n_frames": len(movie), "shape": movie.shape}
                line = f"{label}: {len(movie)} frames"
        except (PhotonCodecError, ImportError) as error:
            code = max(code, UNREACHABLE if isinstance(error, StorageError) else USAGE)
            message = str(error)
            if isinstance(error, FormatError) and place.state() in (State.NOTHING, State.FILE, State.OTHER):
                message = f"{label} holds no unfinished movie: {place.state().value}"
            document, line = {"ok": False, "location": label, "message": message}, f"error: {message}"
        found.append(document)
        if not as_json:
            click.echo(line, err=not document["ok"])
    if as_json:
        report(as_json, {"ok": code == 0, "dry_run": dry_run, "movies": found}, "")
    return code
