"""`python -m diffcern`: the command line."""

from diffcern.cli import main

main()
