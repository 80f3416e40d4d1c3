"""What all commands have in common: -q, -v and --debug, before the command's name or after it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Settings:
    """How one run of the program is to behave; `obj` of click's context."""

    quiet: bool = False
    verbosity: int = 0
    debug: bool = False
    failure_code: int = 1
    """Exit code of a failure that is not wrong usage; `diff` has another."""

    def apply(self) -> None:
        """Send log messages of the library and the commands to stderr, from this level on."""
        level = logging.ERROR if self.quiet else logging.WARNING
        if self.verbosity:
            level = logging.INFO if self.verbosity == 1 else logging.DEBUG
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("cowfs: %(message)s"))
        logger = logging.getLogger("cowfs")
        logger.handlers[:] = [handler]
        logger.setLevel(level)


def _set_quiet(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Settings).quiet = True
        ctx.ensure_object(Settings).apply()


def _set_verbose(ctx: click.Context, _: click.Parameter, value: int) -> None:
    if value:
        ctx.ensure_object(Settings).verbosity += value
        ctx.ensure_object(Settings).apply()


def _set_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Settings).debug = True


def common_options(*, hidden: bool = False) -> list[click.Parameter]:
    return [
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            hidden=hidden,
            callback=_set_quiet,
            help="No progress bar and no warnings; errors only.",
        ),
        click.Option(
            ["-v", "--verbose"],
            count=True,
            is_eager=True,
            expose_value=False,
            hidden=hidden,
            callback=_set_verbose,
            help="Say what is done; twice for more.",
        ),
        click.Option(
            ["--debug"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            hidden=hidden,
            callback=_set_debug,
            help="Show where in the program an error comes from.",
        ),
    ]


class Command(click.Command):
    """A command that takes the common options too."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params.extend(common_options(hidden=True))


def command(name: str, help: str, **attributes: Any) -> Callable[[Callable[..., Any]], Command]:
    """Declare a command; its first line of help stands in SECTIONS too."""
    return click.command(name, cls=Command, help=help, **attributes)
