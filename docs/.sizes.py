"""Print what each extra adds to a plain installation, in megabytes: the figures of docs/installation.md.

    python docs/.sizes.py

Extras with a package that is not installed are printed with its name and without a size.
"""

from __future__ import annotations

import os
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

NAME = "dj-photon-codecs"


def installed_bytes(package: str) -> int:
    """Size of a package's files."""
    distribution = metadata.distribution(package)
    paths = [str(distribution.locate_file(file)) for file in distribution.files or []]
    return sum(os.path.getsize(path) for path in paths if os.path.isfile(path))


def requirements(package: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> set[str]:
    """The names of a package's dependencies, direct and indirect."""
    if (package, extras) in seen:
        return set()
    seen.add((package, extras))
    found = {package}
    try:
        lines = metadata.distribution(package).requires or []
    except metadata.PackageNotFoundError:
        return found
    for line in map(Requirement, lines):
        if line.marker is None or any(line.marker.evaluate({"extra": extra}) for extra in (*extras, "")):
            found |= requirements(canonicalize_name(line.name), frozenset(line.extras), seen)
    return found


def main() -> None:
    """Print one line for the base installation and one for each extra."""
    available = {canonicalize_name(found.name) for found in metadata.distributions()}
    base = requirements(NAME, frozenset(), set()) - {NAME}
    print(f"{'(none)':12} {sum(map(installed_bytes, base)) / 1e6:6.0f} MB")
    for extra in metadata.metadata(NAME).get_all("Provides-Extra") or []:
        added = requirements(NAME, frozenset({extra}), set()) - base - {NAME}
        missing = sorted(added - available)
        size = f"{sum(map(installed_bytes, added - set(missing))) / 1e6:6.0f} MB"
        print(f"{extra:12} {size}" + (f" without {', '.join(missing)}" if missing else ""))


if __name__ == "__main__":
    main()
