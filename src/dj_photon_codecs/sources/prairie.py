"""Read the XML file of Prairie View, which gives channel, plane and time of each image."""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

from ..errors import SourceError
from .groups import Group, Place
from .messages import listed, warn_source
from .metadata import Metadata
from .paths import Found


@dataclass
class _Session:
    """A parsed XML file: place of each image, volumes or not, frame times [s], stage positions [µm], settings."""

    places: dict[str, Place] = field(default_factory=dict)
    volumes: bool = False
    pages: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    times: dict[tuple[int, ...], float] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    stages: dict[int, tuple[float, ...]] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    date: str | None = None

    @property
    def paged_volumes(self) -> bool:
        """Whether each file holds a volume."""
        return self.volumes and max(self.pages.values(), default=1) > 1


def group(found: Found) -> tuple[Group, str | None] | None:
    """Group the files by the XML file, and return the axes of each file too; None without an XML file."""
    session = _session(found)
    if session is None:
        return None
    here = {os.path.basename(name): name for name in found.names}
    unknown = [name for name in here if name not in session.places]
    if unknown:
        raise SourceError(
            f"{found.where} holds {unknown[0]}, which the XML file of Prairie View beside it does not name: leave it "
            "out with pattern="
        )
    channels = {session.places[name].channel for name in here}
    whole = os.path.isdir(found.where)
    missing = [
        name for name, place in session.places.items() if name not in here and (whole or place.channel in channels)
    ]
    if missing:
        warn_source(
            f"{found.where}: {len(missing)} of {len(session.places)} files that the XML file of Prairie View names are "
            f"missing: {listed(missing)}. The others are joined as if there were no gap"
        )
    first = Path(found.names[0])
    stem = str(first.with_name(f"{first.name.partition('_Cycle')[0]}_*"))
    files = {session.places[name]: path for name, path in here.items()}
    return Group(stem, files), "ZYX" if session.paged_volumes else None


def metadata(found: Found) -> Metadata:
    """Metadata from the XML file; empty without one."""
    session = _session(found)
    if session is None:
        return Metadata()
    places = [session.places[os.path.basename(name)] for name in found.names]
    starts = sorted({place.time for place in places}) if max(session.pages.values()) == 1 else []
    times = [session.times[time] for time in starts if time in session.times]
    moments = [time - times[0] for time in times]
    steps = [after - before for before, after in pairwise(moments)]
    regular = bool(steps) and min(steps) > 0
    period = sum(steps) / len(steps) if regular else session.settings.get("framePeriod")
    names = [session.names[channel] for channel in sorted(session.names)]
    chosen = {place.channel for place in places}
    return Metadata(
        increment=None if session.volumes and not steps else period,
        pixel=[session.settings.get(f"micronsPerPixel_{axis}Axis") for axis in "XY"],
        depth=session.settings.get("micronsPerPixel_ZAxis") if session.volumes else None,
        channels=names if len(chosen) == len(names) == 1 else (),
        date=session.date,
        times=moments if regular else (),
    )


def _session(found: Found) -> _Session | None:
    """Session of the first of several files, found by the name of its XML file."""
    first = Path(found.names[0])
    stem, cycle, _ = first.name.partition("_Cycle")
    path = first.with_name(f"{stem}.xml")
    if not cycle or not path.is_file() or len(found.names) < 2:
        return None
    session = _parsed(str(path), path.stat().st_mtime_ns)
    return session if session.places else None


@lru_cache(maxsize=4)
def _parsed(path: str, _: int) -> _Session:
    """Parse an XML file incrementally, because a long recording has hundreds of megabytes of it."""
    session, images, kinds = _Session(), [], set()
    cycle, upward, deepest = 0, False, 0
    try:
        for event, element in ElementTree.iterparse(path, ("start", "end")):
            if event == "start" and element.tag == "PVScan":
                with suppress(ValueError):
                    session.date = datetime.strptime(element.get("date", ""), "%m/%d/%Y %I:%M:%S %p").isoformat()
            elif event == "start" and element.tag == "Sequence":
                cycle = int(element.get("cycle", 0))
                upward = element.get("bidirectionalZ") == "True" and cycle % 2 == 0
                kinds.add("ZSeries" in element.get("type", ""))
            elif event == "end" and element.tag == "Frame":
                index = int(element.get("index", 0))
                deepest = max(deepest, index)
                for file in element.iter("File"):
                    channel = int(file.get("channel", 1))
                    name = os.path.basename(file.get("filename", "").replace("\\", "/"))
                    if name:
                        session.names[channel] = file.get("channelName") or f"Ch{channel}"
                        images.append((cycle, index, upward, element.get("absoluteTime"), channel, name))
                _keep_settings(element, session, cycle)
                element.clear()
            elif event == "end" and element.tag == "PVStateShard":
                _keep_settings(element, session, cycle)
    except (ElementTree.ParseError, ValueError) as error:
        raise SourceError(
            f"{path}, which describes the images, is damaged ({error}): copy it again, or move it away to order the "
            "files by their names"
        ) from error
    session.volumes = kinds == {True}
    for cycle, index, upward, moment, channel, name in images:
        session.pages[name] += 1
        if session.pages[name] > 1:
            continue
        plane = (deepest + 1 - index if upward else index) if session.volumes else 0
        time = (cycle,) if session.volumes else (cycle, index)
        session.places[name] = Place(0, channel, plane, time)
        if moment is not None:
            session.times[time] = min(float(moment), session.times.get(time, float("inf")))
    _separate_positions(session)
    if session.paged_volumes:
        session.places = {
            name: place._replace(plane=0, time=(place.time[0], place.plane)) for name, place in session.places.items()
        }
    return session


def _separate_positions(session: _Session) -> None:
    """Separate stage positions, which Prairie View stores as alternating cycles of one recording."""
    stages = list(dict.fromkeys(session.stages.values()))
    turns = [stages.index(session.stages[cycle]) for cycle in sorted(session.stages)]
    if len(stages) < 2 or turns != [i % len(stages) for i in range(len(turns))]:
        return
    number = dict(zip(sorted(session.stages), turns, strict=True))
    session.places = {
        name: place._replace(position=number.get(place.time[0], 0)) for name, place in session.places.items()
    }


def _keep_settings(element: ElementTree.Element, session: _Session, cycle: int) -> None:
    """Keep the first value of each setting (Prairie View 3 and 5), and the stage position of the cycle [µm]."""
    here = {key.get("key", ""): key.get("value", "") for key in element.iter("Key")}
    for value in element.iter("PVStateValue"):
        here[value.get("key", "")] = value.get("value", "")
        indexed = [(one.get("index", ""), one.get("value", "")) for one in value.iter("IndexedValue")]
        for outer in value.iter("SubindexedValues"):
            indexed += [(outer.get("index", ""), one.get("value", "")) for one in outer.iter("SubindexedValue")]
        for index, text in indexed:
            here.setdefault(f"{value.get('key', '')}_{index}", text)
    for name, found in here.items():
        session.settings.setdefault(name, found)
    stage = [here.get(f"positionCurrent_{axis}Axis") for axis in "XY"]
    if cycle and None not in stage:
        session.stages.setdefault(cycle, tuple(round(float(where or 0)) for where in stage))
