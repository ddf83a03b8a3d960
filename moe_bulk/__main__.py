"""The program: `moe-bulk`, or `python -m moe_bulk` where it is not on the path."""

import os
import signal
import sys

from moe_bulk.manual import shown


def main() -> None:
    """Run the command line. Until there is a run that could be stopped orderly, Ctrl-C leaves at once."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    if shown(sys.argv[1:]):
        return
    from moe_bulk import cli  # noqa: PLC0415  a tenth of a second, in which Ctrl-C may come

    cli.main()


if __name__ == "__main__":
    main()
