"""`python -m allmodes` is the command line."""

from allmodes.cli import main

main()
