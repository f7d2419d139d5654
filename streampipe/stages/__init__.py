"""The stages, one a file. Each is a generator function; the pipeline's methods of the same names add them.

What is no stage: ``stage`` the decorator that makes one · ``guard`` a stage while it runs · ``items`` samples or
batches between two · ``values``, ``left``, ``nothing`` what is refused · ``fields`` names by preference · ``framing``,
``decoder`` how images are cut and decoded · ``collate``, ``varlen`` samples to a batch · ``grouping`` what stands
between ``bucket`` and ``batch`` · ``fuse``, ``rows``, ``decode_rows``, ``map_rows`` written where the batch has it.
"""

from streampipe.stages.assign import assign
from streampipe.stages.batch import Collate, batch
from streampipe.stages.bucket import bucket
from streampipe.stages.caption import caption
from streampipe.stages.clips import clips
from streampipe.stages.collate import collate
from streampipe.stages.collect import collect
from streampipe.stages.decode import decode
from streampipe.stages.default import default
from streampipe.stages.drop import drop
from streampipe.stages.filter import filter
from streampipe.stages.fit import fit
from streampipe.stages.flat_map import flat_map
from streampipe.stages.join import join
from streampipe.stages.map import map
from streampipe.stages.pack import pack
from streampipe.stages.rename import rename
from streampipe.stages.select import select
from streampipe.stages.shuffle import shuffle
from streampipe.stages.skip import skip
from streampipe.stages.stage import Stage, StageDefinition, stage
from streampipe.stages.take import take
from streampipe.stages.unbatch import unbatch
from streampipe.stages.where import where

__all__ = [
    "Collate",
    "Stage",
    "StageDefinition",
    "assign",
    "batch",
    "bucket",
    "caption",
    "clips",
    "collate",
    "collect",
    "decode",
    "default",
    "drop",
    "filter",
    "fit",
    "flat_map",
    "join",
    "map",
    "pack",
    "rename",
    "select",
    "shuffle",
    "skip",
    "stage",
    "take",
    "unbatch",
    "where",
]
