"""Files and functions of the anscombe-transform package, with that package as the oracle."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import anscombe_transform as peer
import anscombe_transform.codec as peer_codec
import dask.array
import numpy as np
import pytest
import zarr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from zarr.storage import MemoryStore

import dj_photon_codecs.anscombe as ours
from dj_photon_codecs import (
    Calibration,
    CalibrationError,
    CodeRangeError,
    ConfigurationError,
    LosslessWarning,
    MovieTypeError,
    PhotonCodecError,
    open_movie,
    write_movie,
)
from dj_photon_codecs.anscombe.legacy import INPUT_MAX, legacy_domain
from dj_photon_codecs.anscombe.legacy_codecs import LegacyAnscombeV2, LegacyAnscombeV3
from dj_photon_codecs.storage import layout as layout_module

ALL_COUNTS = np.arange(INPUT_MAX + 1, dtype=np.int16)
GOLDEN = Path(__file__).parents[1] / "data" / "anscombe_v1"


def peer_round_trip(gain: float, zero: float, encoded: str) -> np.ndarray:
    codes = peer.encode(ALL_COUNTS, conversion_gain=gain, zero_level=zero, encoded_dtype=encoded)
    return peer.decode(
        codes.tobytes(), conversion_gain=gain, zero_level=zero, encoded_dtype=encoded, decoded_dtype="int16"
    )


@given(st.floats(0.5, 2000), st.integers(-50, 300), st.sampled_from(["uint8", "uint16"]))
@settings(max_examples=150, deadline=None)
def test_where_the_peer_is_right_we_agree_and_where_it_is_wrong_we_raise(gain: float, zero: int, encoded: str) -> None:
    options: dict[str, Any] = {"conversion_gain": gain, "zero_level": zero, "encoded_dtype": encoded}
    back = peer_round_trip(gain, zero, encoded)
    top = np.maximum(back.astype(float), ALL_COUNTS)
    sigma = gain * np.sqrt(np.maximum((top - zero) / gain, 0) + 0.375)
    peer_is_right = bool(
        (np.abs(back.astype(float) - ALL_COUNTS) <= 0.26 * sigma + 1).all()
    )  # halves go down, and its kink
    try:
        codes = ours.encode(ALL_COUNTS, **options)
    except PhotonCodecError:
        # below a negative zero level its codes wrap: a few such tables give counts within the bound by luck
        assert not peer_is_right or zero < 0
        return
    assert peer_is_right
    assert (codes == peer.encode(ALL_COUNTS, **options)).all()
    assert (ours.decode(codes, **options, decoded_dtype="int16") == back).all()


def test_the_functions_have_the_peers_signatures() -> None:
    import inspect

    for name in ("encode", "decode", "make_anscombe_lookup", "make_inverse_lookup", "lookup"):
        mine = inspect.signature(getattr(ours, name)).parameters.values()
        theirs = inspect.signature(getattr(peer_codec, name)).parameters.values()
        assert [(p.name, p.kind, p.default) for p in mine] == [(p.name, p.kind, p.default) for p in theirs]


@pytest.mark.parametrize("beta", [0.25, 0.5, 1.0])
def test_the_tables_are_the_peers(beta: float) -> None:
    for gain, zero in itertools.product((30.0, 100.0), (0, 150)):
        table = ours.make_anscombe_lookup(gain, 20_000, zero, beta, "uint16")
        assert (table == peer_codec.make_anscombe_lookup(gain, 20_000, zero, beta, "uint16")).all()
        assert (ours.make_inverse_lookup(table, "int16") == peer_codec.make_inverse_lookup(table, "int16")).all()
        movie = np.array([[-5, 0], [150, 90_000]])
        assert (ours.lookup(movie, table) == peer_codec.lookup(movie, table)).all()


def test_codes_that_wrap_are_refused() -> None:
    with pytest.raises(CodeRangeError, match="which wrap in uint8"):
        ours.make_anscombe_lookup(1.0)


def test_codes_with_gaps_are_refused() -> None:
    gaps = ours.make_anscombe_lookup(1.0, output_type="uint16")
    with pytest.raises(CodeRangeError, match="by rank and would give wrong ones"):
        ours.make_inverse_lookup(gaps)


@pytest.mark.parametrize("value", [-1, 32768, 60000])
def test_counts_that_the_format_clamps_are_refused(value: int) -> None:
    with pytest.raises(CodeRangeError, match=f"clamps counts outside 0 to 32767, got {value}"):
        ours.encode(np.array([value]), conversion_gain=100.0, zero_level=0, encoded_dtype="uint8")


def test_floating_point_counts_are_refused() -> None:
    with pytest.raises(MovieTypeError, match="codes integers, got float64"):
        ours.encode(np.array([1.0]), conversion_gain=100.0, zero_level=0, encoded_dtype="uint8")


def test_the_code_that_also_stands_for_clamped_counts_is_refused_where_there_can_be_any() -> None:
    options: dict[str, Any] = {"conversion_gain": 100.0, "zero_level": 0, "encoded_dtype": "uint8"}
    top = peer.encode(np.array([60000, 100]), **options)
    with pytest.raises(CodeRangeError, match="every count above 32767"):
        ours.decode(top, **options, decoded_dtype="uint16")
    assert (
        ours.decode(top, **options, decoded_dtype="int16")[1]
        == peer.decode(top.tobytes(), **options, decoded_dtype="int16")[1]
    )


@pytest.mark.parametrize("code", [72, 255])
def test_a_code_beyond_the_table_is_refused(code: int) -> None:
    table, inverse = legacy_domain(100.0, 0.0)
    assert len(inverse) <= 72 < 255 < len(table)
    with pytest.raises(CodeRangeError, match="it is damaged"):
        ours.decode(bytes([code]), conversion_gain=100.0, zero_level=0, encoded_dtype="uint8", decoded_dtype="int16")


def small_movie(dtype: str = "int16") -> np.ndarray:
    return (np.arange(6 * 8 * 8).reshape(6, 8, 8) * 61 % 20_000).astype(dtype)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_files_of_the_peer_open_and_decode_as_it_decodes_them(tmp_path: Path, zarr_format: int) -> None:
    if zarr_format == 3:
        codec: Any = peer.AnscombeTransformV3(zero_level=10, conversion_gain=50.0)
        array = zarr.create_array(tmp_path / "a", data=small_movie(), chunks=(3, 8, 8), filters=[codec])
    else:
        array = zarr.create_array(
            tmp_path / "a",
            data=small_movie(),
            chunks=(3, 8, 8),
            filters=[peer.AnscombeTransformV2(zero_level=10, conversion_gain=50.0)],
            zarr_format=2,
        )
    movie = open_movie(tmp_path / "a")
    assert (movie[:] == array[:]).all()
    assert movie.calibration == Calibration.given(50.0, 10)
    assert movie.stabilized[0].dtype == np.float32
    assert movie.verify()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_files_in_which_the_peer_lost_counts_raise(tmp_path: Path, zarr_format: int) -> None:
    codec_type: Any = peer.AnscombeTransformV3 if zarr_format == 3 else peer.AnscombeTransformV2
    zarr.create_array(
        tmp_path / "a",
        data=small_movie() % 50,
        chunks=(3, 8, 8),
        filters=[codec_type(zero_level=0, conversion_gain=1.0)],
        zarr_format=zarr_format,
    )
    movie = open_movie(tmp_path / "a")  # the metadata opens
    with pytest.raises(CodeRangeError, match="wrap in uint8"):
        movie[0]


#: The lowest count that has the highest code at a gain of 100 and a zero level of 0.
TOP_BIN = int(np.searchsorted(legacy_domain(100.0, 0.0)[0], legacy_domain(100.0, 0.0)[0][-1]))


def peer_file(folder: Path, counts: np.ndarray, zarr_format: int = 3, shards: tuple[int, ...] | None = None) -> Path:
    """An array as that package writes it by default: counts decode as int16, whatever the array's dtype."""
    codec_type: Any = peer.AnscombeTransformV3 if zarr_format == 3 else peer.AnscombeTransformV2
    zarr.create_array(
        folder / "a",
        data=counts,
        chunks=(3, 8, 8),
        shards=shards,
        filters=[codec_type(zero_level=0, conversion_gain=100.0)],
        zarr_format=zarr_format,
    )
    return folder / "a"


CONTAINERS = [(3, None), (3, (6, 8, 8)), (2, None)]


@pytest.mark.parametrize(("zarr_format", "shards"), CONTAINERS, ids=["v3", "v3 sharded", "v2"])
def test_clamped_counts_in_a_file_of_the_peer_are_refused(tmp_path: Path, zarr_format: int, shards: Any) -> None:
    counts = small_movie("uint16")
    counts[4, 3, 2] = 60_000
    movie = open_movie(peer_file(tmp_path, counts, zarr_format, shards))
    if shards is None:
        assert movie[0].max() > 0  # frames of other chunks read
    for read in (lambda: movie[4], lambda: movie[:], lambda: movie.verify()):
        with pytest.raises(CodeRangeError, match="every count above 32767.*as uint16 these counts are not known"):
            read()


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64", "uint64"])
def test_clamped_counts_are_refused_in_every_dtype_that_holds_them(tmp_path: Path, dtype: str) -> None:
    movie = open_movie(peer_file(tmp_path, small_movie(dtype) + np.array(40_000, dtype)))
    with pytest.raises(CodeRangeError, match=f"as {dtype} these counts are not known"):
        movie[0]


def test_clamped_counts_are_refused_in_zarr_itself(tmp_path: Path) -> None:
    path = peer_file(tmp_path, np.full((3, 8, 8), 32768, np.uint16))
    with pytest.raises(CodeRangeError, match="as uint16 these counts are not known"):
        zarr.open_array(path, mode="r")[:]


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_counts_of_8_bit_arrays_do_not_wrap(tmp_path: Path, dtype: str) -> None:
    """At this gain the codes of 255 and of 127 stand for counts about 299 and 175."""
    gain = 200.0
    counts = np.arange(np.iinfo(dtype).max + 1).astype(dtype).reshape(-1, 8, 8)
    array = zarr.create_array(tmp_path / "a", data=counts, chunks=(1, 8, 8), filters=[LegacyAnscombeV3(0, gain)])
    table, inverse = legacy_domain(gain, 0.0)
    expected = np.minimum(inverse[table[counts]], np.iinfo(dtype).max)
    assert (expected != inverse[table[counts]]).any()
    assert (array[:] == expected).all()
    assert (open_movie(tmp_path / "a")[:] == expected).all()


@pytest.mark.parametrize(("zarr_format", "shards"), CONTAINERS, ids=["v3", "v3 sharded", "v2"])
@pytest.mark.parametrize(("dtype", "highest"), [("uint16", TOP_BIN - 1), ("int16", TOP_BIN), ("int16", 32767)])
def test_counts_that_cannot_have_been_clamped_are_read(
    tmp_path: Path, dtype: str, highest: int, zarr_format: int, shards: Any
) -> None:
    counts = small_movie(dtype)
    counts[1, 2, 3] = highest
    path = peer_file(tmp_path, counts, zarr_format, shards)
    expected = peer.decode(
        peer.encode(counts, conversion_gain=100.0, zero_level=0, encoded_dtype="uint8").tobytes(),
        conversion_gain=100.0,
        zero_level=0,
        encoded_dtype="uint8",
        decoded_dtype=dtype,
    )
    assert (open_movie(path)[:].ravel() == expected).all()


@pytest.mark.slow
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", ["int16", "uint16"])
def test_the_peer_reads_what_the_profile_writes(tmp_path: Path, zarr_format: Any, dtype: str) -> None:
    calibration = Calibration.given(50.0, 10)
    movie = write_movie(
        tmp_path / "m", small_movie(dtype), calibration=calibration, profile="anscombe-v1", zarr_format=zarr_format
    )
    reader = (
        "import sys, numpy as np, zarr\n"
        "import anscombe_transform\n"
        "zarr.config.set({'codecs.anscombe-v1': 'anscombe_transform.codec.AnscombeTransformV3'})\n"
        "array = zarr.open_array(sys.argv[1], mode='r')\n"
        "assert 'dj_photon_codecs' not in sys.modules or sys.argv[3] == '3'\n"
        "np.save(sys.argv[2], array[:])\n"
    )
    arguments = [str(tmp_path / "m"), str(tmp_path / "out.npy"), str(zarr_format)]
    subprocess.run([sys.executable, "-c", reader, *arguments], check=True)
    assert (np.load(tmp_path / "out.npy") == movie[:]).all()
    assert movie.profile == "anscombe-v1"
    assert movie.dtype == dtype


@pytest.mark.parametrize(
    ("movie", "gain", "options", "error", "match"),
    [
        (small_movie(), 1.0, {}, CodeRangeError, "wrap in uint8|by rank"),
        (small_movie(), 50.0, {"step": 1.0}, ConfigurationError, "fixed step of 0.5"),
        (small_movie("int32"), 50.0, {}, ConfigurationError, "int16 and uint16 counts, got int32"),
        (small_movie("uint16") + np.uint16(40_000), 50.0, {}, CodeRangeError, "clamps counts outside 0 to 32767"),
    ],
    ids=["gain", "step", "dtype", "range"],
)
def test_the_profile_refuses_what_the_peer_would_get_wrong(
    tmp_path: Path, movie: np.ndarray, gain: float, options: dict[str, Any], error: type, match: str
) -> None:
    with pytest.raises(error, match=match):
        write_movie(tmp_path / "m", movie, calibration=Calibration.given(gain, 0), profile="anscombe-v1", **options)
    assert not (tmp_path / "m").exists()


def streamed(counts: np.ndarray) -> Any:
    return dask.array.from_array(counts, chunks=(10, 8, 8))


@pytest.mark.parametrize("source", [np.asarray, streamed])
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("highest", [TOP_BIN, 32767])
def test_counts_that_would_not_read_back_are_refused(
    tmp_path: Path, source: Any, zarr_format: Any, highest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 6: also when they stand in a frame outside the sample, with objects written before it."""
    monkeypatch.setattr(layout_module, "SHARD_BYTES", 1 << 10)
    monkeypatch.setattr(layout_module, "CHUNK_PIXELS", 1 << 9)
    counts = np.tile(small_movie("uint16"), (30, 1, 1))
    counts[100, 3, 4] = highest
    with pytest.raises(CodeRangeError, match=rf"the counts {TOP_BIN} to 32767 and all above, got {highest}: .*int16"):
        write_movie(
            tmp_path / "deep" / "m",
            source(counts),
            calibration=Calibration.given(100.0, 0),
            profile="anscombe-v1",
            zarr_format=zarr_format,
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("source", [np.asarray, streamed])
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(("dtype", "highest"), [("uint16", TOP_BIN - 1), ("int16", 32767)])
def test_the_highest_counts_that_the_profile_takes_read_back(
    tmp_path: Path, source: Any, zarr_format: Any, dtype: str, highest: int
) -> None:
    counts = np.tile(small_movie(dtype), (30, 1, 1))
    counts[100, 3, 4] = highest
    movie = write_movie(
        tmp_path / "m",
        source(counts),
        calibration=Calibration.given(100.0, 0),
        profile="anscombe-v1",
        zarr_format=zarr_format,
    )
    table, inverse = legacy_domain(100.0, 0.0)
    assert (movie[:] == inverse[table[counts]]).all()


@given(st.floats(8, 1e6), st.integers(0, 300), st.integers(0, 32767), st.sampled_from(["int16", "uint16"]))
@settings(max_examples=50, deadline=None)
@example(394.0, 110, 61, "int16")  # further off than the bound of our own transform
def test_what_the_profile_writes_it_reads(gain: float, zero: int, highest: int, dtype: str) -> None:
    counts = np.linspace(0, highest, 192).astype(dtype).reshape(3, 8, 8)
    try:
        movie = write_movie(MemoryStore(), counts, calibration=Calibration.given(gain, zero), profile="anscombe-v1")
    except CodeRangeError:
        return
    assert movie[:].shape == counts.shape


@pytest.mark.parametrize("codec", [LegacyAnscombeV2(0, 100.0), LegacyAnscombeV2(0, 100.0, decoded_dtype="uint16")])
def test_the_codecs_refuse_what_they_would_not_read(codec: LegacyAnscombeV2) -> None:
    with pytest.raises(CodeRangeError, match=f"all above, got {TOP_BIN}: stored as uint16 it would not read back"):
        codec.encode(np.array([5, TOP_BIN], np.uint16))


def test_the_v3_codec_refuses_what_it_would_not_read(tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path / "a", shape=(3, 8, 8), dtype="uint16", filters=[LegacyAnscombeV3(0, 100.0)], fill_value=0
    )
    with pytest.raises(CodeRangeError, match="stored as uint16 it would not read back, as int16 it would"):
        array[:] = TOP_BIN


def test_the_profile_needs_a_noise_model(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="needs a noise model"):
        write_movie(tmp_path / "m", np.full((5, 8, 8), 3, np.uint16), profile="anscombe-v1")
    assert LosslessWarning is not None
    assert not (tmp_path / "m").exists()


IMPORTS = {
    "neither": "",
    "peer": "import anscombe_transform",
    "ours": "import dj_photon_codecs.anscombe.legacy_codecs",
    "peer first": "import anscombe_transform, dj_photon_codecs.anscombe.legacy_codecs",
    "ours first": "import dj_photon_codecs.anscombe.legacy_codecs, anscombe_transform",
}


@pytest.mark.slow
@pytest.mark.parametrize("imports", IMPORTS)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_neither_package_hides_the_other(imports: str, zarr_format: int) -> None:
    """Golden files of the peer open, without a warning, whatever was imported before; and so do ours."""
    script = (
        "import sys, warnings; warnings.simplefilter('error')\n"
        f"{IMPORTS[imports]}\n"
        "import numpy as np, zarr\n"
        "found = zarr.open_array(sys.argv[1], mode='r')[:]\n"
        "assert (found == np.load(sys.argv[2])).all()\n"
        "from dj_photon_codecs import AnscombeTransformV3\n"
        "from zarr.registry import get_codec_class\n"
        "from numcodecs.registry import get_codec\n"
        "assert get_codec_class('dj_photon_codecs.anscombe') is AnscombeTransformV3\n"
        "from dj_photon_codecs import AnscombeTransformV2\n"
        "assert get_codec(AnscombeTransformV2(0, 2).get_config()).conversion_gain == 2\n"
        "assert get_codec({'id': 'anscombe-v1', 'zero_level': 0, 'conversion_gain': 2}).conversion_gain == 2\n"
    )
    arguments = [str(GOLDEN / f"v{zarr_format}.zarr"), str(GOLDEN / f"v{zarr_format}.npy")]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True)


def test_golden_files_of_the_peer_are_read_as_it_read_them() -> None:
    for zarr_format in (2, 3):
        assert (open_movie(GOLDEN / f"v{zarr_format}.zarr")[:] == np.load(GOLDEN / f"v{zarr_format}.npy")).all()
    with pytest.raises(CodeRangeError, match="wrap in uint8"):
        open_movie(GOLDEN / "v3_wrapped.zarr")[:]


@pytest.mark.parametrize("codec", [LegacyAnscombeV2(3, 40.0), LegacyAnscombeV2(3, 40.0, decoded_dtype="uint16")])
def test_the_v2_codec_honours_out(codec: LegacyAnscombeV2) -> None:
    counts = small_movie(codec.decoded_dtype)
    out = np.empty_like(counts)
    assert codec.decode(codec.encode(counts), out=out) is out
    assert (out.ravel() == codec.decode(codec.encode(counts))).all()
    assert codec.get_config() == peer.AnscombeTransformV2(3, 40.0).get_config()


def test_the_v3_metadata_is_the_peers() -> None:
    mine, theirs = LegacyAnscombeV3(3, 40.0), peer.AnscombeTransformV3(3, 40.0)
    assert mine.to_dict() == theirs.to_dict()
    assert LegacyAnscombeV3.from_dict(theirs.to_dict()) == mine
    with pytest.raises(ConfigurationError, match="not a valid anscombe-v1 codec"):
        LegacyAnscombeV3.from_dict({"name": "anscombe-v1", "configuration": {"gain": 3}})
