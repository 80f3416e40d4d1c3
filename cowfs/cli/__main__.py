"""`python -m cowfs.cli` is the command line."""

from cowfs.cli import main

main()
