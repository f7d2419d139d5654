"""The ``streampipe`` command."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from streampipe.commands import bench, cat, index, info, ls, pack, preview, verify
from streampipe.errors import StreampipeError

COMMANDS = {
    "pack": pack,
    "index": index,
    "ls": ls,
    "info": info,
    "verify": verify,
    "cat": cat,
    "preview": preview,
    "bench": bench,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Exit status: 0 done, 1 an error or damage, 2 wrong usage, 3 done but files were skipped."""
    logging.basicConfig(format="%(levelname)s: %(message)s")
    given = _parser().parse_args(arguments)
    try:
        status = int(COMMANDS[given.command].run(given))
        sys.stdout.flush()
        return status
    except StreampipeError as error:
        print(f"streampipe: {error}", file=sys.stderr)  # its text is printable already
        return 1
    except BrokenPipeError:  # whoever reads has enough, as in: streampipe ls ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("streampipe: interrupted; run the same command again to go on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="streampipe", description="Shards of training data (WebDataset format): make, index, look into, verify."
    )
    parser.add_argument("--version", action="version", version=f"streampipe {version('streampipe')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, command in COMMANDS.items():
        command.add(commands.add_parser(name, help=command.HELP, description=command.HELP))
    return parser


if __name__ == "__main__":
    sys.exit(main())
