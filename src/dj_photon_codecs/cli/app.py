"""The command itself: its subcommands, and what becomes of errors, warnings and interruptions."""

from __future__ import annotations

import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

import click

from ..errors import PhotonCodecError
from .compare import benchmark, demo, fidelity
from .look import calibrate, info, verify
from .move import export, write

#: Exit codes: the answer is no; wrong usage, or an error that the user can mend; Ctrl-C.
NO, FAILED, INTERRUPTED = 1, 2, 130

#: Arguments of the library that its messages recommend, and the options that they are here.
_OPTIONS = {"conversion_gain": "--gain", "zero_level": "--zero-level", "signed": "--signed"} | {
    name: f"--{name}" for name in ("channel", "planes", "dataset", "axes", "shape", "dtype", "offset")
}

_HELP = """Store movies of photon counts several times smaller, within their own noise.

A movie is a file of acquisition software (TIFF, HDF5, NWB, Zarr, Suite2p, NPY...) or what `dj-photon write` stored, by
its path or URL. Counts are in ADU (analogue-to-digital units): what the file holds.

\b
Try it, without any file:
  dj-photon demo
Measure a movie's noise, store it, check it:
  dj-photon calibrate scan.tif
  dj-photon write scan.tif scan.zarr
  dj-photon verify scan.zarr

\b
The numbers:
  gain        counts per photon [ADU/photon]: the slope of variance against mean
  zero level  count at which the variance reaches zero, close to the pedestal [ADU]
  step        rounding, in standard deviations of each count's own noise (0.5)
  ratio       bytes of the movie per byte stored

\b
Exit codes:
  0    well
  1    the answer is no: damaged, not reliable, not within the bound
  2    wrong usage, or an error that you can mend; one line on stderr says how
  130  interrupted (Ctrl-C); nothing is left behind
"""


class _App(click.Group):
    """The group of commands; whatever goes wrong in one becomes a line on stderr."""

    def invoke(self, ctx: click.Context) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)  # of which ours are
            told: set[str] = set()
            warnings.showwarning = lambda message, *_, **__: _warn(message, told)
            try:
                result = super().invoke(ctx)
                sys.stdout.flush()  # a reader that went away is noticed here, and not by the interpreter at its end
                return result
            except (click.ClickException, click.exceptions.Exit, click.Abort, KeyboardInterrupt):
                raise
            except BrokenPipeError as error:
                _forget_stdout()
                raise click.ClickException("what reads the output went away") from error
            except Exception as error:  # the outermost place: a user is told of anything in one line
                raise click.ClickException(_sentence(error)) from error


def _warn(message: Warning | str, told: set[str]) -> None:
    """A warning as one line on stderr, once."""
    text = f"warning: {_with_options(_one_line(str(message)))}"
    if text not in told:
        told.add(text)
        click.echo(text, err=True)


def _sentence(error: Exception) -> str:
    """What happened: our own errors say it all, those of others are named."""
    text = _one_line("; ".join([str(error), *getattr(error, "__notes__", [])]))
    if isinstance(error, PhotonCodecError | ImportError):
        return _with_options(text)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"unexpected {type(error).__name__}: {text} (--debug shows where it arose)"


def _with_options(text: str) -> str:
    """A message of the library, with the options that the arguments it speaks of have here."""
    spoken = dict.fromkeys(_OPTIONS[name] for name in re.findall(r"\b(\w+)=", text) if name in _OPTIONS)
    return f"{text} (here: {', '.join(spoken)})" if spoken else text


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _forget_stdout() -> None:
    """Let the interpreter flush what is left to nowhere: it would report the broken pipe again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(cls=_App, help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="dj-photon-codecs", prog_name="dj-photon")
def app() -> None:  # noqa: D103  # its help is above
    pass


@app.command(short_help="Print the script for the Tab key in bash, zsh or fish.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the script that completes commands, options and paths with the Tab key.

    \b
    bash, in ~/.bashrc:                     eval "$(dj-photon completion bash)"
    zsh, in ~/.zshrc:                       eval "$(dj-photon completion zsh)"
    fish, in ~/.config/fish/config.fish:    dj-photon completion fish | source
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # of the three above
    click.echo(kind(app, {}, "dj-photon", _COMPLETE).source())
    return 0


#: The variable by which a shell asks click for completions of ``dj-photon``.
_COMPLETE = "_DJ_PHOTON_COMPLETE"

for _command in (info, calibrate, write, verify, export, fidelity, benchmark, demo):
    app.add_command(_command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``dj-photon``.

    Parameters
    ----------
    argv
        The arguments; those of the process when None.

    Returns
    -------
    int
        The exit code: 0 well, 1 when the answer is no, 2 after an error, 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    debug = "--debug" in arguments
    try:
        return int(app.main(arguments, "dj-photon", complete_var=_COMPLETE, standalone_mode=False) or 0)
    except click.Abort:
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except click.UsageError as error:
        name = error.ctx.command_path if error.ctx else "dj-photon"
        click.echo(f"error: {_one_line(error.format_message())} ({name} --help)", err=True)
    except click.ClickException as error:
        if debug:
            traceback.print_exception(error.__cause__ or error)
        click.echo(f"error: {error.format_message()}", err=True)
    return FAILED
