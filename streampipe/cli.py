"""The ``streampipe`` command. It imports the one command that is meant, when it is run: no help waits for torch."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any, NoReturn

import streampipe
from streampipe.errors import StreampipeError
from streampipe.spelling import similar
from streampipe.usage.arguments import Once

COMMANDS = {
    "pack": "write a folder of images and what lies beside them, other shards, or tables with images, as shards",
    "index": "write an index beside every shard, and a manifest of the dataset",
    "ls": "list the samples of shards: key, bytes of each field, size of the image",
    "info": "count samples, fields and bytes; resolutions, buckets, caption lengths, scores",
    "select": "count what a condition keeps, why the rest is dropped, and keep the answer for later jobs",
    "verify": "read every shard and compare it with index and manifest",
    "cat": "write one field of one sample to standard output, or the sample as JSON",
    "extract": "write the fields of one sample as files",
    "preview": "write a page to look at samples: captions, buckets, crops, masks",
    "bench": "measure samples a second, stage by stage, and say what limits them",
    "completion": "print a script that completes commands and options in a shell",
}
"""Each is a file of ``streampipe.commands``, and one of ``streampipe.usage``, whose ``HELP`` says more."""
_DESCRIPTION = "Shards of training data (tars in the WebDataset format): make, index, look into, check, measure."
_EPILOG = """\
streampipe COMMAND --help says more, with examples. Shards are named by files, folders, brace ranges and globs, local or
remote ('s3://bucket/{00000..01999}.tar'); quote them, so that the shell leaves them alone.

exit status: 0 done; 1 an error, or damage was found; 2 wrong usage; 3 done, but something was skipped, as asked for;
130 interrupted. What went wrong is one line on standard error.
"""
_GO_ON = ("pack", "index")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Exit status: 0 done, 1 an error or damage, 2 wrong usage, 3 done but files were skipped."""
    _open_streams()
    status = _status(arguments)
    try:
        sys.stdout.flush()
    except OSError:  # what is left is for nobody, and Python would try once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _status(arguments: Sequence[str] | None) -> int:
    """The status of a command that has run."""
    logging.basicConfig(format="%(levelname)s: %(message)s")
    words = sys.argv[1:] if arguments is None else list(arguments)
    given = parser(words[:1]).parse_args(words)
    try:
        status = int(command(given.command).run(given))
        sys.stdout.flush()
        return status
    except StreampipeError as error:
        print(f"streampipe: {error}", file=sys.stderr)  # its text is printable already
        return 1
    except BrokenPipeError:  # whoever reads has enough, as in: streampipe ls ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # of standard output, mostly: a full disk
        print(f"streampipe: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        hint = "; run the same command again to go on" if given.command in _GO_ON else ""
        print(f"streampipe: interrupted{hint}", file=sys.stderr)
        return 130


def _open_streams() -> None:
    """Let all be printed: letters that a terminal's encoding lacks by their numbers, and what goes to a closed stream
    to nowhere. (The next file that is opened would have its number.)
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def command(name: str) -> ModuleType:
    """The module that does what a command says."""
    return import_module(f"streampipe.commands.{name}")


def parser(whole: Sequence[str]) -> argparse.ArgumentParser:
    """The parser: all commands by their names, and of those in ``whole`` the arguments too."""
    made = _Parser(
        prog="streampipe",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"streampipe {streampipe.__version__}")
    made.set_defaults(whole=partial(parser, tuple(COMMANDS)))  # for the command that prints completions
    commands = made.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, line in COMMANDS.items():
        if name not in whole:
            commands.add_parser(name, help=line, add_help=False)
            continue
        module = import_module(f"streampipe.usage.{name}")
        examples = getattr(module, "EXAMPLES", "")
        own = commands.add_parser(
            name,
            help=line,
            description=module.HELP,
            epilog=f"examples:{examples}" if examples else None,
            formatter_class=_Formatter,
        )
        own.register("action", None, Once)
        own.register("action", "store", Once)
        module.add(own)
    return made


class _Parser(argparse.ArgumentParser):
    """What is wrong is one line, not buried under all options: with the one that was meant, if one resembles it."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As it is; a command refuses what it does not know itself, because its options are not known outside."""
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            meant = similar(rest[0].partition("=")[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(rest)}{meant}")
        return found, rest

    def error(self, message: str) -> NoReturn:
        """Status 2."""
        self.exit(2, f"{self.prog}: {message}; {self.prog} --help says more\n")


class _Formatter(argparse.HelpFormatter):
    """Descriptions are filled; examples stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("examples:"):
            return text
        return super()._fill_text(text, width, indent)


if __name__ == "__main__":
    sys.exit(main())
