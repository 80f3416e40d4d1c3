"""`python -m cowfs` is the command line."""

from cowfs.cli import main

main()
