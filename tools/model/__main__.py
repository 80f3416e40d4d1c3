"""The command line of `make model`: all states within some bounds, then each mutation."""

from __future__ import annotations

import sys
import time

import click
from rich.console import Console

from .explore import explore
from .mutations import MUTATIONS
from .protocol import Protocol

MUTATION_BOUNDS = (10, 2, 2)
"""In these, each mutation is noticed."""


def bounded(cls: type[Protocol], bounds: tuple[int, int, int]) -> Protocol:
    """A protocol to be explored within bounds."""
    protocol = cls()
    protocol.blocks, protocol.transactions, protocol.crashes = bounds
    return protocol


def words(name: str) -> str:
    """The name of a class as a sentence."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--blocks", default=10, show_default=True, help="Blocks of the image.")
@click.option("--transactions", default=3, show_default=True, help="Transactions in a row.")
@click.option("--crashes", default=2, show_default=True, help="Power cuts.")
def main(blocks: int, transactions: int, crashes: int) -> None:
    """Visit every state of the commit protocol within bounds, then see that mutations are noticed.

    Exit code 1 if a property does not hold, with the steps that lead there.
    """
    _visit((blocks, transactions, crashes))
    for mutation in MUTATIONS:
        result = explore(bounded(mutation, MUTATION_BOUNDS))
        if not result.wrong:
            print(f"Not noticed: {words(mutation.__name__)}")
            sys.exit(1)
        print(f"{words(mutation.__name__)}: noticed in {len(result.trace)} steps: {result.wrong}")
    print(f"All {len(MUTATIONS)} mutations are noticed.")


def _visit(bounds: tuple[int, int, int]) -> None:
    """All states within bounds."""
    started = time.monotonic()
    with Console(stderr=True).status("") as status:
        result = explore(
            bounded(Protocol, bounds), lambda states: status.update(f"{states:,} states")
        )
    seconds = time.monotonic() - started
    blocks, transactions, crashes = bounds
    print(
        f"{blocks} blocks, {transactions} transactions, {crashes} power cuts: "
        f"{result.states:,} states, {result.transitions:,} steps, {seconds:,.0f} s"
    )
    if result.wrong:
        print(f"Wrong: {result.wrong}, after:", *result.trace, sep="\n  ")
        sys.exit(1)


if __name__ == "__main__":
    main(prog_name="model")
