"""The command line: `cowfs COMMAND IMAGE …`, a file of this package for each command.

Nothing here knows how anything is stored; commands translate between words and the library. A
command's module is imported when the command runs, so that a short one stays short. Every way to
end is in `run`: an exit code, and for a failure one line on stderr.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import TextIO

import click

from cowfs import __version__
from cowfs.errors import Error, UsageError

from .command import Settings, common_options

SECTIONS = {
    "Images": {
        "mkfs": "Make an image.",
        "info": "Show what an image is and holds.",
        "df": "Show where the space of an image went.",
        "check": "Verify every structure, count and checksum.",
        "scrub": "Verify every checksum, and repair what has a second copy.",
        "rewind": "Go back to an older checkpoint of a damaged image.",
        "dump": "Show structures on the image, for people who debug.",
    },
    "Datasets and snapshots": {
        "create": "Make a dataset: files, keys and values, or a volume.",
        "resize": "Give a volume another size.",
        "list": "List datasets and snapshots with their space.",
        "snapshot": "Take snapshots, all at one atomic moment.",
        "rollback": "Take a dataset back to a snapshot.",
        "clone": "Make a writable dataset from a snapshot.",
        "rename": "Rename a dataset or snapshot.",
        "destroy": "Destroy datasets or snapshots and free their space.",
        "diff": "Show what changed between two snapshots.",
    },
    "Files": {
        "cp": "Copy files into, out of, between and within images.",
        "ls": "List directories.",
        "cat": "Write files to standard output.",
        "rm": "Remove files and directories.",
        "mkdir": "Make directories.",
    },
    "In use by other programs": {
        "mount": "Mount files, so that any program can use them.",
        "serve": "Serve volumes as network block devices (NBD).",
    },
    "Keys and values": {
        "put": "Store a value.",
        "get": "Write a value to standard output.",
        "del": "Delete keys.",
        "scan": "List keys and values in order.",
    },
    "This program": {
        "completion": "Print the script for completion in a shell.",
    },
}
"""Every command with its line in `cowfs --help`, which so need not import them all."""

MODULES = {"del": "del_", "list": "list_"}
"""Where a module named as the command would hide a word of Python's."""

COMPLETION = "_COWFS_COMPLETE"
"""The variable in which a shell's completion script asks; see completion.py."""

INTERRUPTED = 130
BROKEN_PIPE = 141
"""Exit codes: as a shell shows a program that the signal ended."""


class Commands(click.Group):
    """The commands of SECTIONS, each imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for section in SECTIONS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"{__name__}.{MODULES.get(cmd_name, cmd_name)}")
        command: click.Command = module.run
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and name not in self.list_commands(ctx):
            ctx.fail(f"no command {name!r}{_close(name, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.list_commands(ctx)))
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name.ljust(width), text) for name, text in commands.items()])


def _close(name: str, names: list[str]) -> str:
    import difflib

    matches = difflib.get_close_matches(name, names, n=2)
    return f"; did you mean {' or '.join(map(repr, matches))}?" if matches else ""


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        print(f"cowfs {__version__}")
        ctx.exit()


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    params=common_options(),
    no_args_is_help=False,
    help="Snapshots, clones, rollback, diff and checksums in one ordinary file.\n\n"
    "A place inside an image is IMAGE:DATASET/path or IMAGE:DATASET@SNAPSHOT/path. Sizes are "
    "written like 128K or 1.5G, in binary units.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage; for diff 0 same, 1 differs, 2 trouble.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """The group; its options are those of every command, see command.py."""


def run(arguments: Sequence[str]) -> int:
    """One command from start to end; its exit code."""
    settings = Settings()
    settings.apply()
    try:
        try:
            return _invoke(arguments, settings)
        finally:
            sys.stdout.flush()
    except click.UsageError as error:
        message = error.format_message().replace("\n\t", " ").rstrip(".")
        hint = f" (see '{error.ctx.command_path} --help')" if error.ctx else ""
        return _fail(settings, message[:1].lower() + message[1:] + hint, 2)
    except click.ClickException as error:
        return _fail(settings, error.format_message(), settings.failure_code)
    except (KeyboardInterrupt, click.Abort):
        return _fail(settings, "interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Nobody reads: nothing is to be said, and nothing flushed when the interpreter ends.
        _silence(sys.stdout)
        return BROKEN_PIPE
    except UsageError as error:
        return _fail(settings, str(error), 2)
    except Error as error:
        return _fail(settings, str(error), settings.failure_code)
    except OSError as error:
        return _fail(settings, _describe(error), settings.failure_code)
    except MemoryError:
        return _fail(settings, "out of memory", settings.failure_code)


def _invoke(arguments: Sequence[str], settings: Settings) -> int:
    try:
        if instruction := os.environ.get(COMPLETION):
            from click.shell_completion import shell_complete

            return shell_complete(cli, {}, "cowfs", COMPLETION, instruction)
        with cli.make_context("cowfs", list(arguments), obj=settings) as context:
            if not arguments:
                print(cli.get_help(context), file=sys.stderr)
                return 2
            cli.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    return 0


def _fail(settings: Settings, message: str, code: int) -> int:
    line = " ".join(message.split("\n"))
    try:
        if settings.debug:
            import traceback

            traceback.print_exc()
        print(f"cowfs: {line}", file=sys.stderr, flush=True)
    except OSError:  # nobody to tell
        _silence(sys.stderr)
    return code


def _describe(error: OSError) -> str:
    place = error.filename
    if isinstance(place, bytes):
        place = os.fsdecode(place)
    reason = error.strerror or str(error)
    return f"{place}: {reason}" if place is not None else reason


def _silence(stream: object) -> None:
    """Point the stream's descriptor at nothing, so that flushing it cannot fail again."""
    fileno = getattr(stream, "fileno", None)
    if fileno is not None:
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, fileno())
        os.close(sink)


def _open_standard_streams() -> None:
    """Have all three, and a standard output that loses nothing.

    One that was closed by whoever started this would be given to the image, and get what is meant
    for people; instead it fails on use. Without a buffer (PYTHONUNBUFFERED), Python drops what a
    full disk does not take at once. File names are bytes: what is no text goes out as it is.
    """
    for fd, useless in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, useless)
    sys.stdin = sys.stdin or _open_text(0, "r")
    sys.stdout = _open_text(1, "w")
    sys.stderr = sys.stderr or _open_text(2, "w")


def _open_text(fd: int, mode: str) -> TextIO:
    stream = os.fdopen(fd, mode, -1, "utf-8", "surrogateescape", "\n", closefd=False)
    assert isinstance(stream, io.TextIOWrapper)
    return stream


def main() -> None:
    """The program `cowfs`."""
    _open_standard_streams()
    code = run(sys.argv[1:])
    if code == INTERRUPTED:
        # At once: without waiting for what threads still have in hand. An image needs no goodbye.
        os._exit(code)
    try:
        sys.stdout.flush()
    except OSError:  # as was said already
        _silence(sys.stdout)
    sys.exit(code)
