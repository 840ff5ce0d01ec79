"""The command itself: its subcommands, and how errors, warnings and interruptions are reported."""

from __future__ import annotations

import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

import click

from .._system import Terminated, ends_in_order
from ..errors import DamagedChunkError, MissingChunkError, OccupiedError, PhotonCodecError, StorageError
from .check import recover, verify
from .compare import benchmark, demo, fidelity
from .database import audit, migrate
from .inspect import calibrate, info, inspect
from .output import ALREADY_THERE, CHECK_FAILED, INTERRUPTED, UNREACHABLE, USAGE, Failure, standard_streams
from .survey import survey
from .transfer import export, write

#: Commands that change something, and have done so even if their report cannot be printed.
_DEEDS = {"export", "migrate", "recover", "write"}

#: Errors of the operating system that come from a mistyped path.
_MISNAMED = FileNotFoundError | NotADirectoryError | IsADirectoryError | FileExistsError

#: What to do without access keys.
_REMEDY = (
    ". Set access keys (AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY...), or FSSPEC_S3_ANON=true to read a "
    "public bucket"
)

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
  0    done
  1    the check failed: damaged, noise unknown, not within the bound
  2    usage error, or a movie that cannot be stored; one line on stderr says what to do
  3    already there: the destination is not empty, or is being written to
  4    the storage cannot be reached, read or written
  130  interrupted (Ctrl-C), 143 terminated, 129 hung up; nothing is left behind
"""


class _App(click.Group):
    """The group of commands; a failure of any of them becomes a line on stderr."""

    def invoke(self, ctx: click.Context) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)  # the base class of ours
            told: set[str] = set()
            warnings.showwarning = lambda message, *_, **__: _warn(message, told)
            try:
                return super().invoke(ctx)
            except (click.ClickException, click.exceptions.Exit, click.Abort, KeyboardInterrupt):
                raise
            except Exception as error:  # the outermost place: any error becomes one line
                raise Failure(_sentence(error), _code(error)) from error


def _warn(message: Warning | str, told: set[str]) -> None:
    """Print a warning as one line on stderr, once."""
    text = f"warning: {_with_options(_one_line(str(message)))}"
    if text not in told:
        told.add(text)
        click.echo(text, err=True)


def _sentence(error: Exception) -> str:
    """What happened: the text of our own errors, and the name of others."""
    text = _one_line("; ".join([str(error), *getattr(error, "__notes__", [])]))
    if isinstance(error, PhotonCodecError | ImportError):
        return _with_options(text) + (_REMEDY if "NoCredentialsError" in text else "")
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"unexpected {type(error).__name__}: {text} (--debug shows the traceback)"


def _code(error: Exception) -> int:
    """The exit code that an error has."""
    if isinstance(error, MissingChunkError | DamagedChunkError):
        return CHECK_FAILED
    if isinstance(error, OccupiedError):  # by a writer that started in the meantime
        return ALREADY_THERE
    if isinstance(error, StorageError):
        return UNREACHABLE
    if isinstance(error, OSError) and not isinstance(error, _MISNAMED | PhotonCodecError):
        return UNREACHABLE
    return USAGE


def _with_options(text: str) -> str:
    """A message of the library, with the options of this command for the arguments that it names."""
    context = click.get_current_context()
    command = app.commands.get(context.invoked_subcommand or "", context.command)
    options = {one.name: one.opts[-1] for one in command.params if isinstance(one, click.Option)}
    spoken = dict.fromkeys(options[name] for name in re.findall(r"\b(\w+)=", text) if name in options)
    return f"{text} (here: {', '.join(spoken)})" if spoken else text


def _one_line(text: str) -> str:
    return " ".join(text.split())


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

for _command in (survey, info, inspect, calibrate, write, verify, audit, recover, migrate, export):
    app.add_command(_command)
for _command in (fidelity, benchmark, demo):
    app.add_command(_command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``dj-photon`` with these arguments, or those of the process; return the exit code, as its help lists them."""
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    with standard_streams() as output, ends_in_order():
        code = _run(arguments)
        output.flush()
        if output.error is not None:
            done = code == 0 and arguments[0] in _DEEDS
            text = f"the output could not be written: {_sentence(output.error)}"
            click.echo(f"warning: {text}; {arguments[0]} succeeded anyway" if done else f"error: {text}", err=True)
            return code if done else code or UNREACHABLE
        return code


def _run(arguments: list[str]) -> int:
    """Run a command, and report failures on stderr."""
    debug = "--debug" in arguments
    try:
        return int(app.main(arguments, "dj-photon", complete_var=_COMPLETE, standalone_mode=False) or 0)
    except click.Abort:
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except Terminated as error:
        click.echo("terminated", err=True)
        return int(error.args[0])
    except click.UsageError as error:
        name = error.ctx.command_path if error.ctx else "dj-photon"
        click.echo(f"error: {_one_line(error.format_message())} ({name} --help)", err=True)
        return USAGE
    except click.ClickException as error:
        if debug:
            traceback.print_exception(error.__cause__ or error)
        click.echo(f"error: {_one_line(error.format_message())}", err=True)
        return error.code if isinstance(error, Failure) else USAGE
