"""What a run of ``pack`` did, or would do, in numbers and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from streampipe.folders.walk import Few
from streampipe.pack.catalog import Catalog
from streampipe.pack.output import LIST, REPEATED
from streampipe.pack.shard import Skipped
from streampipe.pack.sift import Sift
from streampipe.pack.supply import Files, Supply


@dataclass
class Summary:
    """What a run of ``pack`` did, or with ``dry_run`` would do."""

    out: str
    samples: int = 0
    shards: int = 0
    kept: int = 0  # shards that an earlier run had finished
    bytes: int = 0  # of the shards; of a dry run, of the files
    fields: dict[str, int] = field(default_factory=dict)
    without_caption: int = 0
    orphans: int = 0
    other: int = 0
    hidden: int = 0
    repeated: int = 0  # samples left out because another has the same image
    stills: int = 0  # animations of which the first frame alone is packed, because they were changed
    dropped: dict[str, int] = field(default_factory=dict)  # samples that ``where`` and ``bucket`` left out, by reason
    seconds: float = 0.0
    skipped: list[Skipped] = field(default_factory=list)
    dry_run: bool = False
    collisions: int = 0  # of a dry run
    examples: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {**asdict(self), "skipped": [each._asdict() for each in self.skipped]}

    def __str__(self) -> str:
        verb = "would be written to" if self.dry_run else "in"
        lines = [
            f"{self.samples} samples in {self.shards} shards ({self.bytes / 1e6:.1f} MB) {verb} {self.out}, "
            f"{self.seconds:.1f} s" + (f"; {self.kept} shards were there already" if self.kept else "")
        ]
        if self.fields:
            shown = ", ".join(f"{name} ({count})" for name, count in sorted(self.fields.items()))
            lines.append(f"  fields: {shown}")
        if self.without_caption:
            lines.append(f"  {self.without_caption} images without a caption file")
        lines += [f"  {note}" for note in self.notes]
        if self.stills:
            what = "pack them without format, resize and the like to keep the others"
            lines.append(f"  {self.stills} animations are packed with their first frame alone; {what}")
        if self.dry_run:
            lines += [f"  for example {each}" for each in self.examples]
        if self.skipped:
            what = "files cannot be packed" if self.dry_run else f"files were left out; listed in {LIST}"
            lines.append(f"  {len(self.skipped)} {what}")
        return "\n".join(lines)


def summary_of(supply: Supply, sift: Sift, out: str, shards: Sequence[object], dry_run: bool) -> Summary:
    """What was found, before anything is written."""
    found = Summary(
        out,
        samples=supply.samples,
        shards=len(shards),
        bytes=supply.bytes,
        fields=dict(sorted(supply.fields.items())),
        repeated=supply.repeated.count,
        dropped=dict(sift.dropped),
        skipped=[Skipped(path, why) for path, why in supply.why_broken()],
        dry_run=dry_run,
        collisions=supply.collisions.count,
        examples=supply.examples() if dry_run else [],
    )
    notes = _of_listing(supply, found) if isinstance(supply, Files) else _of_catalog(supply)
    for few, what in (
        (supply.repeated, "images that are there twice, packed once" + ("" if dry_run else f"; listed in {REPEATED}")),
        (supply.collisions, "name collisions: rename the files"),
    ):
        notes += _counted(few, what)
    found.notes = [*notes, *sift.notes(supply.repeated_in)]
    return found


def _of_listing(files: Files, found: Summary) -> list[str]:
    """What a folder's listing says beside."""
    listing = files.listing
    found.without_caption, found.hidden = listing.without_caption, listing.hidden
    found.orphans, found.other = listing.orphans.count, listing.other.count
    notes = [f"layout: {listing.layout.name} ({listing.layout.about})"]
    notes += _counted(listing.orphans, "sidecar files without an image, not packed")
    notes += _counted(listing.other, "files of other kinds, or in places that the layout does not have, not packed")
    notes += _counted(Few(listing.hidden), "hidden files and folders, passed over")
    if listing.layout.rows is not None and (unused := listing.layout.rows.unused())[0]:
        notes.append(f"{unused[0]} rows of tables are of no image ({'; '.join(unused[1])})")
    return notes


def _of_catalog(supply: Supply) -> list[str]:
    notes = [f"samples of {supply.name}"]
    if isinstance(supply, Catalog) and supply.looked:
        notes.append(f"{supply.looked} shards without an index were read once to find out what they hold")
    return notes


def _counted(few: Few, what: str) -> list[str]:
    shown = f" ({few})" if few.examples else ""
    return [f"{few.count} {what}{shown}"] if few.count else []
