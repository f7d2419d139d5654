"""``streampipe cat URL KEY.FIELD``: the bytes of one field."""

from __future__ import annotations

import argparse
import sys

from streampipe.commands.arguments import add_index, add_storage, finder_of
from streampipe.commands.look import sample
from streampipe.errors import ConfigError
from streampipe.samples import split_name
from streampipe.source import Source, redact
from streampipe.urls import expand

HELP = "write the bytes of one field of one sample to standard output"


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("url", help="a shard; or several (brace range, glob, folder): the first that has the key")
    parser.add_argument("name", metavar="KEY[.FIELD]", help="as ls lists them; a sample of one field needs no FIELD")
    add_storage(parser)
    add_index(parser)


def run(given: argparse.Namespace) -> int:
    """Write the bytes as they are."""
    source = Source(given.storage_options)
    finder = finder_of(given, source)
    key, field = split_name(given.name) or (given.name, "")
    shards = expand([given.url], lambda: source)
    found = next((each for url in shards if (each := sample(url, key, finder)) is not None), None)
    if found is None:
        where = redact(given.url) if len(shards) == 1 else f"the {len(shards)} shards of {redact(given.url)}"
        raise ConfigError(f"there is no sample {key!r} in {where}; streampipe ls lists the keys")
    fields = [name for name in found if not name.startswith("__")]
    if not field and len(fields) == 1:
        field = fields[0]
    if field not in fields:
        what = f"has no field {field!r}" if field else "has several fields"
        raise ConfigError(
            f"sample {key!r} of {found['__url__']} {what}; say one of: {', '.join(f'{key}.{each}' for each in fields)}"
        )
    sys.stdout.buffer.write(found[field])
    sys.stdout.buffer.flush()
    return 0
