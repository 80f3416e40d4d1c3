"""cowfs completion: the script that makes a shell complete commands, options and names."""

from __future__ import annotations

import sys

import click

from .command import command

BASH_WORDS = """\
# Names of snapshots and places in images hold @ and :, which must not end a word.
COMP_WORDBREAKS=${COMP_WORDBREAKS//[@:]/}

"""


@command(
    "completion",
    "Print the script for completion in a shell.\n\n"
    '\b\nbash: eval "$(cowfs completion bash)" in ~/.bashrc\n'
    'zsh:  eval "$(cowfs completion zsh)" in ~/.zshrc\n'
    "fish: cowfs completion fish | source in ~/.config/fish/config.fish",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def run(shell: str) -> None:
    from click.shell_completion import ShellComplete, get_completion_class

    from . import COMPLETION, cli

    found = get_completion_class(shell)
    assert found is not None
    # The base class's: bash's own looks for a bash first, and the script may be for another host.
    script = ShellComplete.source(found(cli, {}, "cowfs", COMPLETION))
    sys.stdout.write((BASH_WORDS if shell == "bash" else "") + script.strip() + "\n")
