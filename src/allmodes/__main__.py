"""`python -m allmodes` is the command line."""

from allmodes.command.main import main

main()
