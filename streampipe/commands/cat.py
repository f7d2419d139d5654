"""``streampipe cat URL KEY.FIELD``: the bytes of one field, or a sample as JSON."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from streampipe.commands.given import finder_of
from streampipe.commands.look import choices, fields_of, one
from streampipe.commands.say import say_json
from streampipe.context import Sample
from streampipe.decoding import decode_field, is_image_field, probe
from streampipe.decoding.extensions import JSONS, NUMBERS, TEXTS, extension_of
from streampipe.errors import ConfigError, SampleError
from streampipe.source import Source, redact


def run(given: argparse.Namespace) -> int:
    """Write the bytes as they are, or what they mean as JSON."""
    sample, field = one(given.url, given.name, finder_of(given, Source(given.storage_options)))
    names = fields_of(sample)
    if given.json:
        say_json(in_words(sample, [field] if field else names))
        return 0
    if not field and len(names) == 1:
        field = names[0]
    if not field:
        raise ConfigError(f"sample {sample['__key__']!r} of {sample['__url__']} has several fields; {choices(sample)}")
    sys.stdout.buffer.write(sample[field])
    sys.stdout.buffer.flush()
    return 0


def in_words(sample: Sample, names: list[str]) -> dict[str, Any]:
    """A sample as plain JSON: of each field its bytes' number, and its value or what it is an image of."""
    fields: dict[str, Any] = {}
    for name in names:
        data = bytes(sample[name])
        fields[name] = {"bytes": len(data)}
        try:
            if is_image_field(name, data):
                header = probe(data)
                fields[name] |= {"format": header.format, "height": header.height, "width": header.width}
            elif extension_of(name) in TEXTS | JSONS | NUMBERS:
                fields[name]["value"] = decode_field(name, data)
        except SampleError as error:
            fields[name]["error"] = str(error)
    return {"key": sample["__key__"], "url": redact(str(sample["__url__"])), "fields": fields}
