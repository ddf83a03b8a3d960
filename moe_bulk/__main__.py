"""`python -m moe_bulk`: the command line, where the program `moe-bulk` is not on the path."""

from moe_bulk.cli import main

main()
