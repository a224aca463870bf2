"""`python -m controller.cli`: the command line where no script is installed."""

from controller.cli import main

main()
