"""Add movies to the scan tables of DataJoint Elements: read each scan file once, analyse it from the store.

    pip install "dj-photon-codecs[examples]"
    python examples/elements.py

The first tables are those of element-calcium-imaging 0.7.8 (MIT licence), with the same names, keys and attributes.
They stay as they are: ScanMovie is a table beside the file paths, and ScanQualityMetrics, the Element's own analysis,
reads frames from it.
"""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path
from typing import Any

from _setup import parser, place  # first, because it says which package is missing

# isort: split

import datajoint as dj
import numpy as np

from dj_photon_codecs import open_source

schema = dj.Schema()

RECORDINGS = Path(__file__).parent / "data"
ROOT = Path()  # the root directory of the imaging data, which main() sets: paths in the tables are relative to it


def get_imaging_root_data_dir() -> Path:
    """Return the root directory of the imaging data, as the Element asks its user to."""
    return ROOT


@schema
class Session(dj.Manual):
    """Stands for element-session (its variant with a number) and element-animal."""

    definition = """
    subject : varchar(8)
    session_id : int32
    ---
    session_datetime : datetime
    """


@schema
class AcquisitionSoftware(dj.Lookup):
    definition = """                 # acquisition software
    acq_software : varchar(24)
    """
    contents: Any = (("ScanImage",), ("Scanbox",), ("NIS",), ("PrairieView",), ("TIFF",))


@schema
class Channel(dj.Lookup):
    definition = """                 # a recording channel
    channel : int8                   # 0-based indexing
    """
    contents: Any = tuple((channel,) for channel in range(5))


@schema
class Scan(dj.Manual):
    definition = """
    -> Session
    scan_id : int32
    ---
    -> AcquisitionSoftware
    scan_notes = '' : varchar(4095)
    """


# --8<-- [start:info]
@schema
class ScanInfo(dj.Imported):
    definition = """                 # about the scan, from the headers of its files
    -> Scan
    ---
    nfields : int8                   # number of fields
    nchannels : int8                 # number of channels
    ndepths : int32                  # number of scanning depths (planes)
    nframes : int32                  # number of recorded frames
    nrois : int8                     # number of ROIs
    fps = null : float32             # (Hz) frames per second; null here, because a plain TIFF file does not say it
    """

    class Field(dj.Part):
        definition = """             # field-specific scan information
        -> master
        field_idx : int32
        ---
        px_height : int16            # height in pixels
        px_width : int16             # width in pixels
        """

    class ScanFile(dj.Part):
        definition = """
        -> master
        file_path : varchar(255)     # filepath relative to root data directory
        """

    def make(self, key: dict[str, Any]) -> None:
        folder = get_imaging_root_data_dir() / key["subject"] / f"scan{key['scan_id']}"
        (path,) = folder.glob("*.tif")
        with open_source(path) as counts:  # instead of scanreader, for every format that this package reads
            n_frames, height, width = counts.shape
            interval = counts.metadata.get("TimeIncrement")
        info = {"nfields": 1, "nchannels": 1, "ndepths": 1, "nframes": n_frames, "nrois": 0}
        self.insert1({**key, **info, "fps": None if interval is None else 1 / interval})
        self.Field.insert1({**key, "field_idx": 0, "px_height": height, "px_width": width})
        self.ScanFile.insert1({**key, "file_path": path.relative_to(get_imaging_root_data_dir()).as_posix()})


# --8<-- [end:info]


# --8<-- [start:movie]
@schema
class ScanMovie(dj.Imported):
    definition = """                 # the one table that the Element does not have
    -> ScanInfo.ScanFile
    ---
    movie : <photon@active>          # time, height, width
    """

    @property
    def key_source(self) -> Any:
        return ScanInfo.ScanFile.proj()

    def make(self, key: dict[str, Any]) -> None:
        self.insert1({**key, "movie": get_imaging_root_data_dir() / key["file_path"]})


# --8<-- [end:movie]


# --8<-- [start:metrics]
@schema
class ScanQualityMetrics(dj.Computed):
    definition = """                 # metrics to assess the quality of the scan
    -> ScanInfo.Field
    """

    class Frames(dj.Part):
        definition = """             # metrics of each frame
        -> master
        -> Channel
        ---
        min_intensity : <blob>
        mean_intensity : <blob>
        max_intensity : <blob>
        contrast : <blob>            # difference between the 99 and 1 percentiles
        """

    @property
    def key_source(self) -> Any:
        return ScanInfo.Field.proj() & ScanMovie  # only scans whose movie is there

    def make(self, key: dict[str, Any]) -> None:
        movie = (ScanMovie & key).fetch1("movie")  # a lazy handle; nothing has been read yet
        self.insert1(key)
        self.Frames.insert1({**key, "channel": 0, **frame_metrics(movie.frames())})


# --8<-- [end:metrics]


def frame_metrics(frames: Any) -> dict[str, Any]:
    """Return the Element's metrics of each frame; one frame is in memory at a time."""
    low, high, least, mean, most = np.transpose(
        [(*np.percentile(frame, (1, 99)), frame.min(), frame.mean(), frame.max()) for frame in frames]
    )
    return {"min_intensity": least, "mean_intensity": mean, "max_intensity": most, "contrast": high - low}


def record(root: Path) -> None:
    """Put two recordings where an acquisition program would, and insert their scans."""
    for number, name in enumerate(("fmi_two_photon.tif", "minisim_12bit.tif"), start=1):
        session = {"subject": f"M{number}", "session_id": 1}
        Session.insert1({**session, "session_datetime": datetime.datetime(2026, 3, number, 9, 30)})
        Scan.insert1({**session, "scan_id": 1, "acq_software": "TIFF", "scan_notes": name})
        folder = root / f"M{number}" / "scan1"
        folder.mkdir(parents=True)
        shutil.copy(RECORDINGS / name, folder)


def main(arguments: list[str] | None = None) -> None:
    """Populate the tables, and compare the metrics of the stored movies with those of the files."""
    global ROOT
    options = parser(__doc__).parse_args(arguments)
    with place(options, schema, "elements", ("active",)) as here:
        ROOT = here.folder / "imaging"
        record(ROOT)
        # --8<-- [start:populate]
        for table in (ScanInfo, ScanMovie, ScanQualityMetrics):
            done = table.populate(reserve_jobs=True)
            print(f"{table.__name__:<20} {done['success_count']} made, {len(table.jobs.errors)} errors")
        # --8<-- [end:populate]
        files = ScanMovie.to_dicts(order_by="KEY")
        columns = f"{'mean':>10}{'in the file':>13}{'contrast':>10}{'in the file':>13}"
        print(f"\n{'file':<30}{'movie':>16}{'smaller':>9}{columns}")
        for row in files:
            key = {name: row[name] for name in ("subject", "session_id", "scan_id")}
            stored = (ScanQualityMetrics.Frames & key).fetch1()
            with open_source(ROOT / row["file_path"]) as source:
                raw = frame_metrics(source[:])
            shape = " x ".join(map(str, row["movie"].shape))
            print(f"{row['file_path']:<30}{shape:>16}{row['movie'].compression_ratio:>9.2f}", end="")
            for name, width in (("mean_intensity", 10), ("contrast", 10)):
                print(f"{stored[name].mean():>{width}.2f}{raw[name].mean():>13.2f}", end="")
            print()


if __name__ == "__main__":
    main()
