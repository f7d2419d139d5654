"""``streampipe extract URL KEY``: the fields of one sample as files."""

from __future__ import annotations

import argparse
from pathlib import Path

from streampipe.atomic import write_atomic
from streampipe.commands.given import finder_of
from streampipe.commands.look import fields_of, one
from streampipe.commands.say import say, say_json
from streampipe.errors import ConfigError
from streampipe.source import Source


def run(given: argparse.Namespace) -> int:
    """Write them; nothing, if one of them is there."""
    sample, field = one(given.url, given.name, finder_of(given, Source(given.storage_options)))
    stem = str(sample["__key__"]).rpartition("/")[2]  # a key is a path of others': it never says where a file goes
    files = {
        Path(given.out) / f"{stem}.{name}": bytes(sample[name]) for name in ([field] if field else fields_of(sample))
    }
    there = next((path for path in files if path.exists()), None)
    if there is not None:
        raise ConfigError(f"{str(there)!r} is there; move it away, or choose another --out")
    try:
        Path(given.out).mkdir(parents=True, exist_ok=True)
        for path, data in files.items():
            if not write_atomic(path, data, new=True):
                raise ConfigError(f"{str(path)!r} was written by somebody else meanwhile; choose another --out")
    except OSError as error:
        raise ConfigError(f"{given.out}: the files cannot be written ({error})") from error
    if given.json:
        say_json({"key": sample["__key__"], "files": {str(path): len(data) for path, data in files.items()}})
        return 0
    for path, data in files.items():
        say(path, len(data))
    return 0
