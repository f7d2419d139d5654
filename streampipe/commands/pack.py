"""``streampipe pack FROM OUT``: a folder of images with sidecars, other shards, or tables with images become shards."""

from __future__ import annotations

import argparse
import json

from streampipe.pack import pack


def run(given: argparse.Namespace) -> int:
    """Pack; 3 if files were skipped; of a dry run 1 if packing would fail."""
    summary = pack(
        given.given[0] if len(given.given) == 1 else given.given,
        given.out,
        max_samples=given.max_samples,
        max_bytes=given.max_bytes,
        shuffle=given.shuffle,
        seed=given.seed,
        on_error=given.on_error,
        layout=given.layout,
        metadata=given.metadata,
        file_column=given.file_column,
        caption_column=given.caption_column,
        caption=given.caption,
        beside=dict(given.beside),
        where=given.where,
        bucket=given.bucket,
        deduplicate=given.deduplicate,
        resize=given.resize,
        max_pixels=given.max_pixels,
        format=given.format,
        quality=given.quality,
        orientation=given.orientation,
        srgb=given.srgb,
        verify=given.verify,
        unpickle=given.unpickle,
        sha256=not given.no_sha256,
        read_as=given.read_as,
        storage_options=given.storage_options,
        follow_symlinks=given.follow_symlinks,
        case_sensitive=given.case_sensitive_keys,
        num_workers=given.workers,
        engine=given.engine,
        address=given.address,
        limits=given.limits,
        dry_run=given.dry_run,
        progress=not given.quiet and not given.json,
    )
    if given.json:
        print(json.dumps(summary.as_dict()))
    elif not given.quiet:
        print(summary)
        if given.dry_run:
            for each in summary.skipped:
                print(f"  cannot be packed: {each.file!r} ({each.reason})")
    if given.dry_run and (summary.collisions or not summary.samples or (summary.skipped and given.on_error == "raise")):
        return 1
    return 3 if summary.skipped else 0
