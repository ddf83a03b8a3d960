"""The program: `moe-bulk`, or `python -m moe_bulk` where it is not on the path."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is still being loaded is Ctrl-C."""
    try:
        from moe_bulk import cli  # noqa: PLC0415  within the try
    except KeyboardInterrupt:
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
