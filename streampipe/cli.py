"""The ``streampipe`` command."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence

from streampipe.errors import StreampipeError
from streampipe.index import index
from streampipe.pack import pack
from streampipe.source import Source
from streampipe.urls import expand

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Exit status: 0 done, 1 an error, 2 wrong usage, 3 done but files were skipped."""
    logging.basicConfig(format="%(levelname)s: %(message)s")
    given = _parser().parse_args(arguments)
    try:
        return int(given.run(given))
    except StreampipeError as error:
        print(f"streampipe: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("streampipe: interrupted; run the same command again to go on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="streampipe", description="Shards of training data: make and index them.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    each = commands.add_parser("pack", help="write a folder of images with .txt/.json sidecars as shards")
    each.add_argument("folder", help="the folder; images are found in all folders below it")
    each.add_argument("out", help="where the shards go; made if it does not exist")
    each.add_argument("--max-samples", type=_positive, default=10_000, metavar="N", help="a shard's samples (10000)")
    each.add_argument("--max-bytes", type=_size, default=10**9, metavar="B", help="a shard's bytes, as in 500M (1G)")
    each.add_argument("--shuffle", action="store_true", help="shuffle the samples over all shards")
    each.add_argument("--seed", type=int, default=0, metavar="S", help="of the shuffle (0)")
    each.add_argument("--on-error", choices=("raise", "skip"), default="raise", help="for files that cannot be read")
    each.add_argument("--follow-symlinks", metavar="ROOT", help="links may lead into ROOT, not only into the folder")
    each.add_argument("--quiet", action="store_true", help="no progress bar, no summary")
    each.set_defaults(run=_pack)
    each = commands.add_parser("index", help="write an index beside every shard, and a manifest of the dataset")
    each.add_argument("urls", nargs="+", help="shards, brace ranges, globs or folders, local or remote")
    each.add_argument("--out", metavar="FOLDER", help="where indexes and manifest go, if not beside the shards")
    each.add_argument("--threads", type=_positive, default=4, metavar="N", help="shards read at once (4)")
    each.add_argument("--storage-options", type=_options, default={}, metavar="JSON", help="for fsspec")
    each.add_argument("--quiet", action="store_true", help="no progress bar, no summary")
    each.set_defaults(run=_index)
    return parser


def _pack(given: argparse.Namespace) -> int:
    summary = pack(
        given.folder,
        given.out,
        max_samples=given.max_samples,
        max_bytes=given.max_bytes,
        shuffle=given.shuffle,
        seed=given.seed,
        on_error=given.on_error,
        follow_symlinks=given.follow_symlinks,
        progress=not given.quiet,
    )
    if not given.quiet:
        print(summary)
    return 3 if summary.skipped else 0


def _index(given: argparse.Namespace) -> int:
    source = Source(given.storage_options)
    shards = expand(given.urls, lambda: source)
    summary = index(shards, source, folder=given.out, threads=given.threads, progress=not given.quiet)
    if not given.quiet:
        print(summary)
    return 0


def _options(text: str) -> dict[str, object]:
    try:
        options = json.loads(text)
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object, as in '{{\"anon\": true}}'")
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def _size(text: str) -> int:
    """Bytes from ``500M`` or ``1.5G``; units are powers of 1000."""
    digits = text.rstrip("bB")
    unit = digits[-1:].lower() if digits[-1:].isalpha() else ""
    try:
        number = int(float(digits[: len(digits) - len(unit)]) * _UNITS[unit])
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 500M or 1G") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
