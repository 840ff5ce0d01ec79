"""Which files belong together, by their names alone: a table, and what every grouping holds."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest

from dj_photon_codecs.sources.groups import Place, grouped


def names(pattern: str, **ranges: Iterable[Any]) -> list[str]:
    return [pattern.format(**dict(zip(ranges, values, strict=True))) for values in product(*ranges.values())]


#: Names; and of each recording the glob, its axes, and how many positions, channels, planes and points in time.
TABLE = {
    "numbered": (names("frame{n}.tif", n=range(1, 12)), [("frame*.tif", "", (1, 1, 1, 11))]),
    "numbers alone": (names("{n}.avi", n=range(12)), [("*.avi", "", (1, 1, 1, 12))]),
    "a date": (names("m_2023_05_01_{n:04}.tif", n=range(4)), [("m_2023_05_01_*.tif", "", (1, 1, 1, 4))]),
    "a decimal": (names("12.5um_{n}.tif", n=range(3)), [("12.5um_*.tif", "", (1, 1, 1, 3))]),
    "a running time": (
        [f"rec_{120000 + n}_{n:04}.tif" for n in range(4)],
        [("rec_*_*.tif", "", (1, 1, 1, 4))],
    ),
    "Prairie, two channels": (
        names("T_Cycle00001_CurrentSettings_Ch{c}_{n:06}.tif", n=range(1, 12), c="12"),
        [("T_Cycle00001_CurrentSettings_Ch*_*.tif", "C", (1, 2, 1, 11))],
    ),
    "Prairie, a file a channel": (
        names("T_Cycle00001_Ch{c}_000001.ome.tif", c="12"),
        [("T_Cycle00001_Ch*_000001.ome.tif", "C", (1, 2, 1, 1))],
    ),
    "Prairie, volumes": (
        names("T_Cycle{k:05}_Ch{c}_{n:06}.ome.tif", k=range(1, 6), n=range(1, 4), c="12"),
        [("T_Cycle*_Ch*_*.ome.tif", "CZ", (1, 2, 3, 5))],
    ),
    "Prairie, cycles of other lengths": (
        [f"T_Cycle{k:05}_Ch2_{n:06}.tif" for k, count in ((1, 3), (2, 5), (3, 4)) for n in range(1, count + 1)],
        [("T_Cycle*_Ch2_*.tif", "", (1, 1, 1, 12))],
    ),
    "Micro-Manager": (
        names(
            "img_channel{c:03}_position{p:03}_time{t:09}_z{z:03}.tif", c=range(2), p=range(3), t=range(4), z=range(5)
        ),
        [("img_channel*_position*_time*_z*.tif", "PCZ", (3, 2, 5, 4))],
    ),
    "Micro-Manager 1.4": (
        names("img_{t:09}_{c}_{z:03}.tif", t=range(4), c=["GFP", "Cy 5"], z=range(3)),
        [("img_*.tif", "CZ", (1, 2, 3, 4))],
    ),
    "Micro-Manager 1.4, a folder a position": (
        names("Pos{p}/img_{t:09}_GFP_{z:03}.tif", p=range(2), t=range(4), z=range(3)),
        [("Pos0/img_*.tif", "Z", (1, 1, 3, 4)), ("Pos1/img_*.tif", "Z", (1, 1, 3, 4))],
    ),
    "ThorImage": (
        names("Chan{c}_0001_0001_{z:04}_{t:04}.tif", c="AB", z=range(1, 4), t=range(1, 5)),
        [("Chan*.tif", "CZ", (1, 2, 3, 4))],
    ),
    "letters": (
        names("m_t{t:03}z{z}c{c}.tif", t=range(3), z=range(2), c=range(2)),
        [("m_t*z*c*.tif", "CZ", (1, 2, 2, 3))],
    ),
    "two cameras": (
        names("{w}{n}.avi", w=["behavCam", "msCam"], n=range(1, 4)),
        [("behavCam*.avi", "", (1, 1, 1, 3)), ("msCam*.avi", "", (1, 1, 1, 3))],
    ),
    "two acquisitions": (
        names("m_00001_{n:05}.tif", n=range(1, 4)) + names("m_00002_{n:05}.tif", n=range(1, 3)),
        [("m_00001_*.tif", "", (1, 1, 1, 3)), ("m_00002_*.tif", "", (1, 1, 1, 2))],
    ),
    "two acquisitions, the second without its first file": (
        ["m_00001_00001.tif", "m_00001_00002.tif", "m_00002_00002.tif"],
        [("m_00001_*.tif", "", (1, 1, 1, 2)), ("m_00002_00002.tif", "", (1, 1, 1, 1))],
    ),
    "two acquisitions of a file": (
        names("m_{n:05}_00001.tif", n=range(1, 3)),
        [("m_00001_00001.tif", "", (1, 1, 1, 1)), ("m_00002_00001.tif", "", (1, 1, 1, 1))],
    ),
    "an average": (
        [*names("m_{n:03}.tif", n=range(1, 4)), "m_avg.tif", "AVG_m_001.tif"],
        [("AVG_m_001.tif", "", (1, 1, 1, 1)), ("m_*.tif", "", (1, 1, 1, 3)), ("m_avg.tif", "", (1, 1, 1, 1))],
    ),
    "two folders": (
        names("day{d}/{n}.avi", d=range(1, 3), n=range(2)),
        [("day1/*.avi", "", (1, 1, 1, 2)), ("day2/*.avi", "", (1, 1, 1, 2))],
    ),
    "without numbers": (["a.tif", "b.tif"], [("a.tif", "", (1, 1, 1, 1)), ("b.tif", "", (1, 1, 1, 1))]),
    "numbers that differ in zeros": (["m_1.tif", "m_01.tif"], [("m_01.tif", "", (1,) * 4), ("m_1.tif", "", (1,) * 4)]),
}


@pytest.mark.parametrize("case", TABLE)
def test_files_are_grouped_by_their_names(case: str) -> None:
    files, expected = TABLE[case]
    random.Random(0).shuffle(files)
    groups = grouped(files)
    found = [(group.stem, group.axes, tuple(len(group.coordinates(axis)) for axis in "PCZT")) for group in groups]
    assert found == expected
    assert sorted(name for group in groups for name in group.files.values()) == sorted(files)  # none twice, none lost
    assert not any(group.missing() for group in groups)


def test_places_are_what_the_names_say() -> None:
    [group] = grouped(names("m_t{t:02}z{z}c{c}.tif", t=range(11), z=range(2), c=range(2)))
    assert group.files[Place(0, 1, 0, (10,))] == "m_t10z0c1.tif"
    [group] = grouped(names("m_{n}.tif", n=range(11)))
    assert [group.files[place] for place in sorted(group.files, key=lambda place: place.time)][2:] == [
        f"m_{n}.tif" for n in range(2, 11)
    ]


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        (names("m_{n}.tif", n=[1, 2, 4, 5]), ["number 3"]),
        (names("m_{n}.tif", n=[1, 2, 7, 8, 12]), ["number 3-6, 9-11"]),
        (names("m_{n}.tif", n=[1, 3]), ["number 2"]),
        (names("m_{n}.tif", n=[0, 1000, 2000, 3000]), []),  # named after their first frames
        (names("m_{n}.tif", n=[20230501120000, 20230501120003]), []),
        (names("T_Cycle00001_Ch{c}_{n:06}.tif", c="12", n=range(1, 5))[:-1], ["number 4 of channel 2"]),
        (names("m_t{t}z{z}.tif", t=range(3), z=[0, 2]), ["plane 1"]),
        (
            [f"T_Cycle00001_Ch2_{n:06}.tif" for n in (1, 2, 4)] + [f"T_Cycle00002_Ch2_{n:06}.tif" for n in (1, 2)],
            ["number 3 in cycle 1"],
        ),
    ],
    ids=str,
)
def test_missing_numbers_are_named(files: list[str], missing: list[str]) -> None:
    [group] = grouped(files)
    assert group.missing() == missing


def test_cycles_that_may_be_volumes_are_doubtful() -> None:
    [group] = grouped(names("T_Cycle{k:05}_Ch1_{n:06}.tif", k=range(1, 4), n=range(1, 6)))
    assert "3 cycles of 5 images are volumes or time series" in group.doubts[0]
    assert 'axes="TYX"' in group.doubts[0]
