"""Format the results of ``comparison.py`` as Markdown, and insert them into the pages between their markers."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from common import table

Record = dict[str, Any]

_PERFORMANCE = "docs/explanation/performance.md"
_CODER = "docs/explanation/entropy-coder.md"

#: The page of each region.
_PAGES = {
    "table": "README.md",
    "folder": _PERFORMANCE,
    "cores": _PERFORMANCE,
    "s3": _PERFORMANCE,
    "growth": _PERFORMANCE,
    "coders": _CODER,
    "scaling": _CODER,
}


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Return the text of every region whose part was measured."""
    found = {}
    for region, part, text in (
        ("table", "folder", _readme),
        ("folder", "folder", _folder),
        ("s3", "s3", _s3),
        ("growth", "growth", _growth),
        ("coders", "coders", _coders),
        ("scaling", "coders", _scaling),
    ):
        if part in results:
            found[region] = text(results[part])
    if "cores" in results and "folder" in results:
        found["cores"] = _cores(results["cores"], results["folder"])
    return found


def write(root: Path, results: dict[str, Any]) -> None:
    """Write every region into its page."""
    for region, text in tables(results).items():
        _put(root / _PAGES[region], region, text)


def _put(page: Path, region: str, text: str) -> None:
    before = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {region}:begin -->", f"<!-- {region}:end -->"
    after, count = re.subn(f"({begin}\n).*?({end})", lambda m: f"{m[1]}{text}\n{m[2]}", before, flags=re.DOTALL)
    if count != 1:
        raise RuntimeError(f"{page}: {count} places from {begin} to {end}, expected 1")
    page.write_text(after, encoding="utf-8")


def short(regime: str) -> str:
    """Shorten the label of a regime or a recording."""
    return regime.partition(", zero")[0].partition(" recording")[0]


def speed(record: Record, key: str) -> float:
    """Return the best speed [MB/s of counts]."""
    return float(record["bytes"] / 1e6 / min(record[f"{key} [s]"]))


def _shown(name: str) -> str:
    """Format a method's name; profiles become code."""
    return name if " " in name or name[0].isupper() else f"`{name}`"


def _run(part: Record, what: str) -> str:
    return f"{what}; best of {part['repeat']} runs. {part['machine']}."


def _movie(part: Record) -> str:
    return f"{part['frames']} frames of {part['size']} x {part['size']} uint16"


def _regimes(records: Iterable[Record]) -> list[str]:
    return list(dict.fromkeys(record["regime"] for record in records))


def _bold_best(rows: list[list[str]], columns: Sequence[int], largest: bool = True) -> None:
    """Mark the best value of some columns."""
    for column in columns:
        values = [float(row[column]) if re.fullmatch(r"[\d.]+", row[column]) else None for row in rows]
        known = [value for value in values if value is not None]
        best = (max if largest else min)(known, default=None)
        for row, value in zip(rows, values, strict=True):
            if value is not None and value == best:
                row[column] = f"**{row[column]}**"


def _timed_cells(record: Record) -> list[str]:
    """Return the columns: write, read, random frame, frame by frame, memory to write and to read."""
    return [
        f"{speed(record, 'write'):.0f}",
        f"{speed(record, 'read'):.0f}",
        f"{1e3 * statistics.median(record['random frame [s]']):.1f}",
        f"{max(record['frames a second']):.0f}",
        f"{record['write peak [B]'] / 1e6:.0f}",
        f"{record['read peak [B]'] / 1e6:.0f}",
    ]


def _wrong(record: Record) -> str:
    wrong = record["wrong counts"]
    return f"{wrong:,} ({200 * wrong / record['bytes']:.3g} %)" if wrong else "0"


def _folder(part: Record) -> str:
    """Format a table for each regime."""
    head = (
        "stored with",
        "times smaller",
        "bits per pixel",
        "limit [bits]",
        "write [MB/s]",
        "read [MB/s]",
        "random frame [ms]",
        "frame by frame [frames/s]",
        "memory, writing [MB]",
        "memory, reading [MB]",
        "worst error [sigma]",
        "wrong counts",
    )
    texts = [f"{_run(part, _movie(part))} Slow methods ran once. Random frames are medians."]
    for regime in _regimes(part["records"]):
        rows = []
        for record in part["records"]:
            if record["regime"] != regime:
                continue
            if "crashed" in record:
                rows.append([record["method"], "crashed", *[""] * (len(head) - 2)])
                continue
            rows.append(
                [
                    _shown(record["method"]),
                    f"{record['ratio']:.2f}",
                    f"{record['bits']:.2f}",
                    f"{record['limit bits']:.2f}" if "limit bits" in record else "",
                    *_timed_cells(record),
                    f"{record['worst error [sigma]']:.2f}",
                    _wrong(record),
                ]
            )
        _bold_best(rows, (1, 4, 5, 7))
        _bold_best(rows, (6, 8, 9), largest=False)
        texts.append(f"### {regime[0].upper()}{regime[1:]}\n\n{table(head, rows)}")
    return "\n\n".join(texts)


#: Rows of the README's table: what people choose between.
_CHOICE = (
    "standard",
    "dense",
    "blosc2, zstd-5 bitshuffle",
    "zarr, Blosc zstd-5 bitshuffle",
    "HDF5, Blosc zstd-5 bitshuffle",
    "TIFF, uncompressed",
    "zarr, anscombe-transform 1.0.0",
)


def _readme(part: Record) -> str:
    """Tabulate the sizes of the first and last movie, the speeds of the first, and the worst error of all."""
    records, movies = part["records"], _regimes(part["records"])
    of = {(record["method"], record["regime"]): record for record in records if "crashed" not in record}
    shown = list(dict.fromkeys((movies[0], movies[-1])))
    head = ["stored with", *(f"times smaller: {short(movie)}" for movie in shown)]
    head += ["write [MB/s]", "read [MB/s]", "random frame [ms]", "frame by frame [frames/s]", "worst error [sigma]"]
    rows = []
    for method in _CHOICE:
        found = [of.get((method, movie)) for movie in shown]
        if found[0] is not None:
            worst = max(record["worst error [sigma]"] for (name, _), record in of.items() if name == method)
            ratios = ["crashed" if one is None else f"{one['ratio']:.2f}" for one in found]
            rows.append([_shown(method), *ratios, *_timed_cells(found[0])[:4], f"{worst:.2f}"])
    n, gigabytes = len(shown), 2 * part["frames"] * part["size"] ** 2 / 1e9
    _bold_best(rows, (*range(1, n + 1), n + 1, n + 2, n + 4))
    _bold_best(rows, (n + 3,), largest=False)
    return (
        f"{table(head, rows)}\n\n"
        f"Speeds are for the {short(movies[0])} movie at {gigabytes:.2g} GB on 2 cores, best of {part['repeat']} runs, "
        "measured together by `benchmarks/comparison.py` ([more movies and methods, machine, versions]"
        f"({_PERFORMANCE})). Writing with `standard` or `dense` includes measuring the noise. The worst error is in "
        f"noise standard deviations, over {len(movies)} movies."
    )


def _cores(part: Record, folder: Record) -> str:
    """Tabulate one core and all cores side by side."""
    head = ["stored with"]
    head += [f"{way}, {cores}" for way in ("write", "read") for cores in ("1 core", "2 cores", "factor")]
    regime = part["records"][0]["regime"]
    all_cores = {record["method"]: record for record in folder["records"] if record["regime"] == regime}
    rows = []
    for one in part["records"]:
        two = all_cores.get(one["method"], {"crashed": True})
        cells = [_shown(one["method"])]
        if "crashed" in one or "crashed" in two:
            rows.append([*cells, "crashed", *[""] * 5])
            continue
        for key in ("write", "read"):
            cells += [f"{speed(one, key):.0f}", f"{speed(two, key):.0f}", f"{speed(two, key) / speed(one, key):.2f}"]
        rows.append(cells)
    return f"{_run(part, f'{_movie(part)}, {regime}; MB/s of counts')}\n\n{table(head, rows)}"


def _s3(part: Record) -> str:
    head = (
        "stored with", "write [s]", "requests", "read [s]", "requests", "random frame [ms]", "requests",
        "frame by frame [frames/s]", "requests per frame",
    )  # fmt: skip
    rows = []
    for record in part["records"]:
        median = {key: statistics.median(value) for key, value in record.items() if isinstance(value, list)}
        rows.append(
            [
                _shown(record["method"]),
                *(
                    cell
                    for key in ("write", "read")
                    for cell in (f"{median[f'{key} [s]']:.2f}", f"{median[f'{key} requests']:.0f}")
                ),
                f"{1e3 * median['random frame [s]']:.0f}",
                f"{median['random frame requests']:.0f}",
                f"{1 / median['loop [s]']:.1f}",
                f"{median['loop requests']:.2f}",
            ]
        )
    regime = part["records"][0]["regime"]
    return f"{_run(part, f'{_movie(part)}, {regime}')}\n\n{table(head, rows)}"


def _growth(part: Record) -> str:
    head = (
        "profile", "movie [GB]", "stored [GB]", "cores", "write [s]", "write [MB/s]", "memory [MB]",
        "read [s]", "read [MB/s]", "memory [MB]",
    )  # fmt: skip
    rows = []
    for record in part["records"]:
        cells = [
            _shown(record["method"]),
            f"{record['bytes'] / 1e9:.3g}",
            f"{record['stored'] / 1e9:.3f}",
            str(record["cores"]),
        ]
        for key in ("write", "read"):
            taken = record[f"{key} [s]"]
            cells += [f"{taken:.1f}", f"{record['bytes'] / 1e6 / taken:.0f}", f"{record[f'{key} peak [B]'] / 1e6:.0f}"]
        rows.append(cells)
    frames = f"frames of {part['size']} x {part['size']} uint16, {part['records'][0]['regime']}"
    return f"{frames[0].upper()}{frames[1:]}; one run each. {part['machine']}.\n\n{table(head, rows)}"


def _coders(part: Record) -> str:
    """Tabulate ratios, their share of the limit, and speeds."""
    regimes = _regimes(part["records"])
    of = {(record["coder"], record["regime"]): record for record in part["records"]}
    coders = list(dict.fromkeys(record["coder"] for record in part["records"]))
    ratios, speeds = [], []
    for coder in coders:
        records = [of[coder, regime] for regime in regimes]
        ratios.append(
            [
                coder,
                *(
                    "crashed" if "crashed" in r else f"{r['bytes'] / r['coded']:.2f} ({r['limit'] / r['coded']:.1%})"
                    for r in records
                ),
            ]
        )
        speeds.append(
            [
                coder,
                *(
                    "crashed" if "crashed" in r else f"{r['encode [MB/s]']:.0f} / {r['decode [MB/s]']:.0f}"
                    for r in records
                ),
            ]
        )
    limits = [next(r for r in part["records"] if r["regime"] == regime and "limit" in r) for regime in regimes]
    ratios.append(["Shannon limit", *(f"{r['bytes'] / r['limit']:.2f}" for r in limits)])
    head = ["coder", *(short(regime).replace("photons", "ph.") for regime in regimes)]
    movie = f"{part['coded_frames']} frames of {part['size']} x {part['size']} uint16, one thread"
    return (
        f"{_run(part, movie)}\n\nRatio to the uint16 counts, and share of the Shannon limit reached:\n\n"
        f"{table(head, ratios)}\n\nEncoding / decoding [MB/s of uint16 counts]:\n\n{table(head, speeds)}"
    )


def _scaling(part: Record) -> str:
    """Tabulate our coder on one and two threads, and by chunk length."""
    ours = [record for record in part["records"] if "share by chunk frames" in record]
    lengths = list(ours[0]["share by chunk frames"])
    head = ["regime", *(f"{way}, {column}" for way in ("encode", "decode") for column in ("1", "2", "factor"))]
    rows = []
    for record in ours:
        cells = [record["regime"]]
        for way in ("encode", "decode"):
            one, two = (record[f"{way}, {threads} threads [MB/s]"] for threads in (1, 2))
            cells += [f"{one:.0f}", f"{two:.0f}", f"{two / one:.2f}"]
        rows.append(cells + [f"{record['share by chunk frames'][length]:.1%}" for length in lengths])
    text = "On one thread and two [MB/s of uint16 counts], and the share of the limit by chunk length:"
    return f"{text}\n\n{table([*head, *(f'{length} frames' for length in lengths)], rows)}"
