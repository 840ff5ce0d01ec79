"""Compare this package with the alternatives in one run: in a folder, on S3, coders on the same codes, growing movies.

    pip install -e ".[dev,benchmarks]"
    python benchmarks/comparison.py --draw

Prints the tables. With ``--draw`` it also saves the raw results in ``benchmarks/results/comparison.json``, writes the
tables into the pages between their markers, and draws the pictures; ``--parts ''`` does so from saved results. Methods
that are not installed are skipped, with a line that says so. Linux only (reads memory and cores from the kernel).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pages
from common import machine
from methods import METHODS

ROOT = Path(__file__).parents[1]

#: Packages whose versions are saved with the results, if installed.
PACKAGES = ("numba", "blosc2", "imagecodecs", "pcodec", "s3fs", "moto")

PARTS = ("folder", "cores", "s3", "coders", "growth")


def measure(options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the records of each requested part when it is done."""
    from coding import measure_coders
    from storing import available, measure_folder, measure_growth, measure_one_core, measure_s3

    start = time.perf_counter()

    def say(text: str) -> None:
        print(f"{time.perf_counter() - start:4.0f} s  {text}", file=sys.stderr, flush=True)

    pythons, missing = available(options.methods, options.pymecompress)
    for line in missing:
        say(line)
    huffman = next((pythons[name] for name in pythons if METHODS[name].needs == "pymecompress"), None)
    measures: dict[str, Callable[[], list[pages.Record]]] = {
        "folder": lambda: measure_folder(options, pythons, say),
        "cores": lambda: measure_one_core(options, pythons, say),
        "s3": lambda: measure_s3(options, pythons, say),
        "coders": lambda: measure_coders(options, huffman, say),
        "growth": lambda: measure_growth(options, pythons, say),
    }
    run = {name: getattr(options, name) for name in ("frames", "coded_frames", "size", "repeat")}
    for part in options.parts.split(","):
        yield part, {"machine": machine(*PACKAGES), **run, "records": measures[part]()}
    say("done")


def main() -> None:
    """Measure, print and, if requested, save and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="which, with commas; '' for none")
    parser.add_argument("--methods", default="", help="regular expression for their names; all when empty")
    parser.add_argument("--frames", type=int, default=2000, help="of the movies that are stored")
    parser.add_argument("--coded-frames", type=int, default=64, help="of the movies whose codes are coded")
    parser.add_argument("--size", type=int, default=512, help="height and width of a frame, a multiple of 4")
    recording = ROOT / "examples" / "data" / "fmi_two_photon.tif"
    parser.add_argument("--recording", type=Path, default=recording, help="stored as well, repeated to that size")
    parser.add_argument("--regimes", default="0,1,3", help="in a folder: numbers from 0, with commas, or all")
    parser.add_argument("--coded-regimes", default="all", help="of the coders: as --regimes")
    parser.add_argument("--gigabytes", default="0.1,1,10", help="lengths of the movies that grow")
    parser.add_argument("--repeat", type=int, default=3, help="turns of each; the best are shown")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="where to write; the system's temporary folder when not given")
    parser.add_argument("--pymecompress", help="the Python of an environment that has PYMECompress")
    parser.add_argument("--draw", action="store_true", help="keep the results, and write pages and pictures")
    parser.add_argument("--root", type=Path, default=ROOT, help="where the pages, pictures and results are")
    options = parser.parse_args()
    results_path = options.root / "benchmarks" / "results" / "comparison.json"
    results = json.loads(results_path.read_text(encoding="utf-8")) if results_path.exists() and options.draw else {}
    for part, found in measure(options) if options.parts else ():
        results[part] = found
        if options.draw:  # at once: it took minutes
            results_path.parent.mkdir(parents=True, exist_ok=True)
            results_path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for text in pages.tables(results).values():
        print(f"{text}\n")
    if options.draw:
        import pictures

        pages.write(options.root, results)
        pictures.draw(options.root / "docs" / "explanation" / "img", results)


if __name__ == "__main__":
    main()
