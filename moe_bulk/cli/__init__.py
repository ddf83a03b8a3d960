"""The command line: arguments → library calls → exit code; one file a command."""

from moe_bulk.cli.app import app as app
from moe_bulk.cli.program import main as main
from moe_bulk.cli.program import run as run
