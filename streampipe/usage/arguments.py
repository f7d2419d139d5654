"""Arguments that several commands have, and the kinds of values they take."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import fields
from typing import Any

from streampipe.tar import Limits
from streampipe.usage.words import ENGINES

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


class Once(argparse._StoreAction):
    """An option with a value, said once: of two, one would be passed over in silence."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        said = vars(namespace).setdefault("said", set())
        if option is not None and self.dest in said:
            parser.error(f"argument {option}: it was said twice, and means one thing; say it once")
        said.add(self.dest)
        super().__call__(parser, namespace, values, option)


def add_urls(parser: argparse.ArgumentParser) -> None:
    """Shards, and how their store is reached."""
    parser.add_argument("urls", nargs="+", help="shards, brace ranges, globs or folders, local or remote")
    add_storage(parser)


def add_storage(parser: argparse.ArgumentParser) -> None:
    """How a store is reached, and what shards may hold."""
    parser.add_argument("--storage-options", type=options, default={}, metavar="JSON", help="for fsspec")
    add_limits(parser)


def add_limits(parser: argparse.ArgumentParser) -> None:
    """What shards may hold."""
    parser.add_argument(
        "--limits",
        type=limits,
        default=Limits(),
        metavar="NAME[=N],...",
        help="as in concatenated,max_member_bytes=4G (see sp.Limits)",
    )


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Who does the work."""
    parser.add_argument("--engine", choices=ENGINES, default="local", help="ray: shards are tasks of a Ray cluster")
    parser.add_argument("--address", help="of the Ray cluster (that of the environment, or one on this machine)")


def add_index(parser: argparse.ArgumentParser) -> None:
    """Where indexes are."""
    parser.add_argument(
        "--index", type=index_folder, metavar="FOLDER", help="where indexes and manifest are, if not beside the shards"
    )


def index_folder(text: str) -> str:
    """A folder that is there, where that can be seen: nobody would notice that no index is used."""
    from streampipe.source import local_path  # where one is said: not for --help

    path = local_path(text)
    if path is not None and not os.path.isdir(path):
        raise argparse.ArgumentTypeError(f"{text!r} is no folder; streampipe index URL --out FOLDER makes one")
    return text


def options(text: str) -> dict[str, object]:
    """A JSON object."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object, as in '{{\"anon\": true}}'")
    return found


def limits(text: str) -> Limits:
    """``sp.Limits`` from the names that are not as by default.

    >>> limits("concatenated,max_member_bytes=4G").max_member_bytes
    4000000000
    """
    kinds = {each.name: type(each.default) for each in fields(Limits)}
    found: dict[str, Any] = {}
    for name, _, value in (each.strip().partition("=") for each in text.split(",")):
        if name not in kinds or (kinds[name] is bool) == bool(value):
            raise argparse.ArgumentTypeError(f"{text!r} is no list of limits; there are {', '.join(kinds)}")
        if name in found:
            raise argparse.ArgumentTypeError(f"{text!r} has {name} twice")
        found[name] = True if kinds[name] is bool else size(value)
    return Limits(**found)


def positive(text: str) -> int:
    """A number of 1 or more."""
    return whole(text, 1)


def whole(text: str, least: int = 0) -> int:
    """A number of 0 or more."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if number < least:
        raise argparse.ArgumentTypeError(f"{text} is not {least} or more")
    return number


def size(text: str) -> int:
    """Bytes from ``500M`` or ``1.5G``; units are powers of 1000.

    >>> size("500M"), size("1.5GB"), size("12")
    (500000000, 1500000000, 12)
    """
    digits = text.rstrip("bB")
    unit = digits[-1:].lower() if digits[-1:].isalpha() else ""
    try:
        number = int(float(digits[: len(digits) - len(unit)]) * _UNITS[unit])
    except (KeyError, ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 500M or 1G") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number
