"""The command line: what each command prints, writes and returns, and one line for whatever goes wrong."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tracemalloc
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from dj_photon_codecs import FileMovie, SourceError, open_movie, open_source, write_movie
from dj_photon_codecs.cli import compare as compare_module
from dj_photon_codecs.cli import main
from dj_photon_codecs.cli import transfer as transfer_module
from dj_photon_codecs.cli.compare import simulated
from dj_photon_codecs.cli.inspect import info
from interrupted import interrupt_while_writing
from services import S3Server

GAIN, ZERO = 10.0, 100.0


@dataclass(frozen=True)
class Run:
    """A command that ended: its exit code, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The document on stdout; strict, and alone there."""

        def refused(name: str) -> None:
            raise AssertionError(f"{name} is not JSON")

        assert self.out.count("\n") == 1
        return json.loads(self.out, parse_constant=refused)


Shell = Callable[..., Run]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Runs ``dj-photon`` with arguments in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Run:
        code = main(arguments)
        return Run(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def counts() -> Any:
    """40 frames of 64 x 64 with a noise model that can be measured."""
    rng = np.random.default_rng(0)
    return (ZERO + GAIN * rng.poisson(np.linspace(1, 30, 64), size=(40, 64, 64))).astype(np.uint16)


@pytest.fixture
def scan(tmp_path: Path, counts: Any) -> str:
    """The file of a movie; its name in the folder that commands run in."""
    np.save(tmp_path / "scan.npy", counts)
    return "scan.npy"


@pytest.fixture
def stored(tmp_path: Path, counts: Any) -> str:
    """A stored movie; its name in the folder that commands run in."""
    write_movie(tmp_path / "stored.zarr", counts)
    return "stored.zarr"


@pytest.fixture
def flat(tmp_path: Path) -> str:
    """The file of a movie without noise."""
    np.save(tmp_path / "flat.npy", np.full((20, 32, 32), 7, np.uint16))
    return "flat.npy"


def test_without_arguments_there_is_help(shell: Shell) -> None:
    run = shell()
    assert (run.code, run.err) == (0, "")
    assert "dj-photon demo" in run.out


def test_info_of_a_stored_movie_says_what_the_handle_says(shell: Shell, stored: str) -> None:
    movie = open_movie(stored)
    run = shell("info", stored)
    assert run.code == 0
    assert "40 x 64 x 64 (time, height, width)" in run.out
    assert f"{movie.compression_ratio:.3g} times smaller" in run.out
    document = shell("info", stored, "--json").json
    assert document["ratio"] == movie.compression_ratio
    assert document["calibration"] == movie.calibration.to_dict()
    assert document["chunks"] == list(movie.chunks)


def test_info_of_a_file_says_shape_and_dtype(shell: Shell, scan: str) -> None:
    run = shell("info", scan)
    assert (run.code, run.err) == (0, "")
    assert "40 x 64 x 64" in run.out
    assert "uint16" in run.out
    assert shell("info", scan, "--json").json == {"shape": [40, 64, 64], "dtype": "uint16", "stored": False}


def test_info_of_an_array_that_others_wrote_has_no_noise_model(shell: Shell, counts: Any) -> None:
    zarr.create_array("other.zarr", data=counts)
    assert "not recorded" in shell("info", "other.zarr").out
    assert shell("info", "other.zarr", "--json").json["calibration"] is None


def test_calibrate_prints_the_noise_model_and_draws_the_curve(shell: Shell, scan: str) -> None:
    run = shell("calibrate", scan)
    assert run.code == 0
    assert "ADU/photon" in run.out
    assert run.out.count("o") > 20
    assert "mean [ADU]" in run.out
    noise = shell("calibrate", scan, "--json").json
    assert abs(noise["conversion_gain"] / GAIN - 1) < 0.1


def test_calibrate_of_a_stored_movie_shows_what_was_found_when_it_was_written(shell: Shell, stored: str) -> None:
    assert shell("calibrate", stored, "--json").json == open_movie(stored).calibration.to_dict()


def test_calibrate_answers_no_where_the_noise_model_is_not_reliable(shell: Shell, flat: str) -> None:
    run = shell("calibrate", flat)
    assert run.code == 1
    assert "unknown: all sampled counts are 7" in run.out
    assert "no photon transfer curve" in run.out


def test_json_has_null_for_what_is_not_a_number(shell: Shell, flat: str) -> None:
    assert shell("calibrate", flat, "--json").json["conversion_gain"] is None


def test_calibrate_plots_to_svg_and_png(shell: Shell, scan: str) -> None:
    assert shell("calibrate", scan, "--plot", "curve.svg").code == 0
    assert shell("calibrate", scan, "--plot", "curve.png").code == 0
    assert ET.parse("curve.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert Path("curve.png").read_bytes().startswith(b"\x89PNG")


def test_write_stores_as_the_library_does(shell: Shell, scan: str, stored: str) -> None:
    run = shell("write", scan, "new.zarr")
    assert (run.code, run.err) == (0, "")
    assert "standard, step 0.5" in run.out
    assert (np.asarray(open_movie("new.zarr")[:]) == np.asarray(open_movie(stored)[:])).all()


def test_write_takes_noise_model_step_profile_and_format(shell: Shell, scan: str) -> None:
    options = "--gain 9.5 --zero-level 98 --step 1 --profile portable --zarr-format 2 --json"
    document = shell("write", scan, "new.zarr", *options.split()).json
    assert (document["profile"], document["step"], document["zarr_format"]) == ("portable", 1.0, 2)
    noise = document["calibration"]
    assert (noise["conversion_gain"], noise["zero_level"], noise["method"]) == (9.5, 98.0, "given")


def test_every_option_of_open_source_is_one_of_the_command_line() -> None:
    taken = {name for name, one in signature(open_source).parameters.items() if one.kind is one.KEYWORD_ONLY}
    offered = {option.name for option in info.params if option.name not in ("movie", "as_json", "debug")}
    assert offered == taken


def test_write_signed_takes_negative_counts_of_an_array(shell: Shell, counts: Any) -> None:
    zarr.create_array("negative.zarr", data=counts.astype(np.int16) - np.int16(ZERO + 2 * GAIN))
    refused = shell("write", "negative.zarr", "new.zarr")
    assert refused.code == 2
    assert "negative" in refused.err
    assert shell("write", "negative.zarr", "new.zarr", "--signed").code == 0
    assert open_movie("new.zarr")[:].min() < 0


def test_options_of_a_file_reach_the_library(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def open_source(path: str, **options: Any) -> Any:
        seen.append((path, options))
        raise SourceError("two: give channel=0 or dataset='/a'")

    monkeypatch.setattr("dj_photon_codecs.open_source", open_source)
    options = "--channel 1 --planes 0,2 --dataset /a --axes TZYX --shape -1,2,8,8 --dtype >i2 --offset 16"
    assert shell("info", "scan.bin", *options.split()).err.endswith("'/a' (here: --channel, --dataset)\n")
    assert shell("info", "*.tif").code == 2
    given = {"channel": 1, "planes": (0, 2), "dataset": "/a", "axes": "TZYX", "shape": (-1, 2, 8, 8)}
    assert seen == [("scan.bin", given | {"dtype": ">i2", "offset": 16}), ("*.tif", {})]


def test_what_is_stored_losslessly_is_a_warning_of_one_line(shell: Shell, flat: str) -> None:
    run = shell("write", flat, "new.zarr", "--json")
    assert run.code == 0
    assert re.fullmatch(r"warning: no noise model: .*\(here: --gain, --zero-level\)\n", run.err)
    assert run.json["profile"] == "lossless"


def test_verify_answers_yes(shell: Shell, stored: str) -> None:
    run = shell("verify", stored)
    assert (run.code, run.err) == (0, "")
    assert "there and unaltered" in run.out
    assert shell("verify", stored, "--json").json["ok"] is True


def test_verify_answers_no_and_lists_the_chunks(shell: Shell, stored: str) -> None:
    [chunk] = [path for path in Path(stored, "c").rglob("*") if path.is_file()]
    content = bytearray(chunk.read_bytes())
    content[100] ^= 1
    chunk.write_bytes(content)
    run = shell("verify", stored)
    assert run.code == 1
    assert "chunk (0, 0, 0) (frames 0 to 39)" in run.out
    chunk.unlink()
    [document] = shell("verify", stored, "--json").json["movies"]
    assert document["missing"][0]["chunk"] == [0, 0, 0]
    assert document["lost_frames"] == [[0, 40]]


@pytest.mark.parametrize("content", ["{", "{}x", None])
def test_verify_answers_no_where_the_metadata_was_altered(shell: Shell, stored: str, content: str | None) -> None:
    document = Path(stored, "zarr.json")
    document.write_text(content or document.read_text().replace('"step": 0.5', '"step": 0.25'))
    run = shell("verify", stored)
    assert run.code == 1
    assert "metadata" in run.out


@pytest.mark.parametrize(("option", "frames"), [("5:15", slice(5, 15)), (":-30", slice(0, 10)), ("30:", slice(30, 40))])
def test_export_writes_the_frames_to_npy(shell: Shell, stored: str, option: str, frames: slice) -> None:
    run = shell("export", stored, "part.npy", "--frames", option)
    assert (run.code, run.err) == (0, "")
    assert (np.load("part.npy") == open_movie(stored)[frames]).all()


def test_export_writes_tiff(shell: Shell, stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import tifffile

    monkeypatch.setattr(transfer_module, "_block_length", lambda _: 7)
    assert shell("export", stored, "movie.tif", "--json").json["shape"] == [40, 64, 64]
    with tifffile.TiffFile("movie.tif") as file:
        assert file.series[0].axes == "TYX"
        assert (file.asarray() == open_movie(stored)[:]).all()


def test_export_of_planes_keeps_their_axis(shell: Shell) -> None:
    import tifffile

    planes = np.arange(6 * 3 * 16 * 20, dtype=np.float32).reshape(6, 3, 16, 20)
    write_movie("planes.zarr", planes, profile="lossless")
    for name in ("planes.tiff", "planes.npy"):
        assert shell("export", "planes.zarr", name).code == 0
    assert (tifffile.imread("planes.tiff") == planes).all()
    assert (np.load("planes.npy") == planes).all()


@pytest.mark.parametrize("suffix", ["npy", "tif"])
def test_export_takes_no_more_memory_for_a_longer_movie(shell: Shell, suffix: str) -> None:
    """DESIGN invariant 7, on the way out."""
    counts = np.random.default_rng(0).integers(0, 9, (600, 64, 64)).astype(np.uint16)
    peaks = []
    for length in (1, 150, 600):  # the first one imports
        zarr.create_array(f"{length}.zarr", data=counts[:length], chunks=(5, 64, 64), shards=(30, 64, 64))
        tracemalloc.start()
        assert shell("export", f"{length}.zarr", f"{length}.{suffix}").code == 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < 0.1 * counts[150:].nbytes


def test_export_of_a_file_reads_a_block_at_a_time(
    shell: Shell, scan: str, counts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_module, "_BLOCK_BYTES", 7 * counts[0].nbytes)
    read = FileMovie.__getitem__
    lengths: list[int] = []

    def watched(self: FileMovie, selection: Any) -> Any:
        lengths.append(selection.stop - selection.start)
        return read(self, selection)

    monkeypatch.setattr(FileMovie, "__getitem__", watched)
    assert shell("export", scan, "part.npy", "--frames", "3:20").code == 0
    assert lengths == [4, 7, 6]
    assert (np.load("part.npy") == counts[3:20]).all()


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_shows_on_a_terminal_only(
    shell: Shell, stored: str, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dj_photon_codecs.storage.progress._PATIENCE", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    run = shell("export", stored, "movie.npy")
    assert ("exporting" in run.err) == terminal
    assert "exporting" not in run.out


def test_fidelity_answers_yes_for_what_was_stored(shell: Shell, scan: str, stored: str) -> None:
    run = shell("fidelity", scan, stored, "--plot", "report.png")
    assert (run.code, run.err) == (0, "")
    assert "within half a step and half a count" in run.out
    assert Path("report.png").exists()
    assert shell("fidelity", scan, stored, "--json").json["within_bound"] is True


def test_fidelity_answers_no_for_another_movie(shell: Shell, stored: str, counts: Any) -> None:
    np.save("other.npy", counts[::-1])
    assert shell("fidelity", "other.npy", stored, "--json").code == 1


@pytest.mark.slow
def test_benchmark_has_our_profiles_and_lossless_zarr(shell: Shell, scan: str) -> None:
    run = shell("benchmark", scan, "--frames", "10", "--repeat", "1", "--json")
    assert (run.code, run.err) == (0, "")
    rows = {row["name"]: row for row in run.json["rows"]}
    assert list(rows) == ["standard", "dense", "portable", "zarr lossless (Blosc)"]
    assert rows["dense"]["ratio"] > rows["zarr lossless (Blosc)"]["ratio"]
    assert all(value > 0 for row in rows.values() for name, value in row.items() if name != "name")
    assert run.json["shape"] == [10, 64, 64]


def test_benchmark_simulates_a_movie(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_module, "_costs", lambda *_: {"standard": compare_module._Cost(5.0, 100.0, 200.0, 3.0)})
    run = shell("benchmark", "--frames", "8", "--size", "32")
    assert run.code == 0
    assert "simulated movie: 8 x 32 x 32 uint16" in run.out
    assert re.search(r"standard +5\.00 +100 MB/s +200 MB/s +3\.0 ms", run.out)


def test_demo_needs_nothing_and_leaves_nothing(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_module, "simulated", lambda *_: simulated(60, 96))
    Path("temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", "temporary")
    run = shell("demo")
    assert (run.code, run.err) == (0, "")
    assert "within the bound" in run.out
    assert "there and unaltered" in run.out
    document = shell("demo", "--json").json
    noise, true = document["calibration"], document["true_gain"]
    assert abs(noise["conversion_gain"] / true - 1) < 3 * noise["gain_error"]
    assert list(Path("temporary").iterdir()) == []


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_prints_the_script_of_the_shell(shell: Shell, name: str) -> None:
    run = shell("completion", name)
    assert run.code == 0
    assert f"_DJ_PHOTON_COMPLETE={name}_complete" in run.out.replace("env ", "")


def test_completion_knows_commands_and_options(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("_DJ_PHOTON_COMPLETE", "zsh_complete")
    monkeypatch.setenv("COMP_WORDS", "dj-photon write --pro")
    monkeypatch.setenv("COMP_CWORD", "2")
    with pytest.raises(SystemExit):
        main([])
    assert "--profile" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("fly", "No such command 'fly'"),
        ("write scan.npy", "Missing argument 'DEST'"),
        ("write scan.npy new.zarr --profile best", "'best' is not one of 'standard'"),
        ("write scan.npy new.zarr --step 9", "step must be a number from 0 .* got 9"),
        ("write scan.npy new.zarr --gain -1", "conversion_gain .* is -1"),
        ("write scan.npy new.zarr --zero-level 5", "without conversion_gain"),
        ("write scan.npy new.zarr --profile dense --zarr-format 2", "needs zarr_format=3"),
        ("write scan.npy new.zarr --planes one", "'one' is not a list of whole numbers"),
        ("write nowhere.npy new.zarr", "nowhere.npy'"),
        ("write text.xyz new.zarr", "text.xyz"),
        ("info nowhere", "nowhere'"),
        ("calibrate scan.npy --plot curve.docx", r"'curve.docx' must end in .svg, .png or .pdf"),
        ("export scan.npy movie.avi", "movie.avi must end in one of .npy, .tif, .tiff"),
        ("export scan.npy new.npy --frames 5", "'5' is not a range of frames START:STOP"),
        ("export scan.npy new.npy --frames 50:", "--frames 50: holds no frame: the movie has 40"),
        ("export scan.npy new.npy --frames 500:600", "--frames 500:600 holds no frame: the movie has 40, from 0 to 39"),
        ("write scan.npy new.zarr --force --skip-existing", "contradict each other"),
        ("write scan.npy xyz://bucket/new.zarr", "xyz://bucket/new.zarr: Protocol not known: xyz; known are .*s3"),
        ("info xyz://bucket/new.zarr", "Protocol not known: xyz; known are"),
        ("benchmark scan.npy --zero-level 5", "without conversion_gain"),
        ("recover full", "full holds no unfinished movie: it holds something other than a movie"),
        ("export scan.npy nowhere/new.npy", "No such file or directory: nowhere"),
        ("fidelity scan.npy nowhere", "there is no Zarr array at"),
    ],
)
def test_an_error_is_one_line_and_leaves_nothing(shell: Shell, scan: str, arguments: str, message: str) -> None:
    Path("full").mkdir()
    Path("full", "old.npy").touch()
    Path("text.xyz").write_text("no movie")
    before = sorted(Path().rglob("*"))
    run = shell(*arguments.split())
    assert (run.code, run.out) == (2, "")
    assert re.fullmatch(rf"error: .*({message}).*\n", run.err), run.err
    assert sorted(Path().rglob("*")) == before


def test_an_unexpected_error_is_one_line_and_its_traceback_is_for_debug(
    shell: Shell, scan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a\nbug")

    monkeypatch.setattr(FileMovie, "__getitem__", broken)
    run = shell("calibrate", scan)
    assert (run.code, run.out) == (2, "")
    assert run.err == "error: unexpected RuntimeError: a bug (--debug shows the traceback)\n"
    assert "Traceback" in shell("calibrate", scan, "--debug").err


def test_ctrl_c_leaves_nothing(shell: Shell, scan: str, stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = sorted(Path().rglob("*"))
    monkeypatch.setattr(FileMovie, "__getitem__", interrupted)
    assert shell("write", scan, "new.zarr", "--gain", "10").code == 130
    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", interrupted)
    run = shell("export", stored, "new.npy")
    assert (run.code, run.err.strip()) == (130, "interrupted")
    assert sorted(Path().rglob("*")) == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no signal to one process")
@pytest.mark.parametrize(
    ("name", "code", "told"),
    [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated"), ("SIGHUP", 129, "terminated")],
)
def test_a_signal_while_writing_leaves_nothing(tmp_path: Path, counts: Any, name: str, code: int, told: str) -> None:
    np.save(tmp_path / "long.npy", counts)
    script = "from dj_photon_codecs.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["write", "long.npy", "new.zarr", "--gain", "10", "--profile", "portable"]
    ended, err = interrupt_while_writing(script, *arguments, cwd=tmp_path, number=getattr(signal, name))
    assert ended == code, err
    assert err.strip() == told
    assert [path.name for path in tmp_path.iterdir()] == ["long.npy"]


def test_help_imports_nothing_heavy_and_a_command_what_it_needs(scan: str, tmp_path: Path) -> None:
    """DataJoint and matplotlib take seconds; a command that needs neither does without."""
    script = """
import sys
from dj_photon_codecs.cli import main
main(["--help"])
heavy = {"datajoint", "matplotlib", "numba", "numcodecs", "numpy", "zarr", "tqdm"} & set(sys.modules)
assert not heavy, heavy
assert main(["write", "scan.npy", "new.zarr"]) == 0
assert main(["fidelity", "scan.npy", "new.zarr"]) == 0
heavy = {"datajoint", "matplotlib", "pandas", "pydantic", "tifffile"} & set(sys.modules)
assert not heavy, heavy
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "dj-photon demo" in done.stdout


def test_the_installed_command_is_this_one() -> None:
    from importlib.metadata import entry_points

    [point] = entry_points(group="console_scripts", name="dj-photon")
    assert point.load() is main


def configure_s3(monkeypatch: pytest.MonkeyPatch, endpoint: str, key: str, secret: str) -> None:
    """What users have in fsspec's configuration; each makes a client of its own."""
    import fsspec

    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": endpoint, "key": key, "secret": secret})


def test_commands_take_urls(shell: Shell, scan: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    configure_s3(monkeypatch, s3_server.endpoint, s3_server.access_key, s3_server.secret_key)
    url = f"s3://{s3_server.new_bucket()}/scan.zarr"
    assert shell("write", scan, url).code == 0
    assert shell("info", url).code == 0
    assert shell("verify", url).code == 0
    assert shell("export", url, "frame.npy", "--frames", "3:4").code == 0
    missing = shell("verify", f"{url}/nothing")
    assert missing.code == 2
    assert "not a movie: nothing is there" in missing.out


def test_a_store_that_cannot_be_reached_is_an_error_of_one_line(
    shell: Shell, scan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    configure_s3(monkeypatch, "http://127.0.0.1:9", "unreachable", "very-secret-key")
    for arguments in (("info", "s3://bucket/scan.zarr"), ("write", scan, "s3://bucket/scan.zarr")):
        run = shell(*arguments)
        assert (run.code, run.out) == (4, "")
        assert run.err.startswith("error: ")
        assert run.err.count("\n") == 1
        assert "very-secret-key" not in run.err
