"""The arguments of ``streampipe preview URL...``."""

from __future__ import annotations

import argparse

from streampipe.usage.arguments import add_index, add_urls, positive, whole

HELP = """Write a page (HTML) to look at samples: images small with captions, sizes, buckets and facts, the crop that
training would see, masks and control images laid over them; it sorts, filters and searches. The page is one file and
needs no network. With --out FILE.png it is a contact sheet in place of a page."""
EXAMPLES = """
  streampipe preview shards/ --bucket sdxl --crop random --seed 7
  streampipe preview 's3://bucket/{00000..00099}.tar' --where 'aesthetic < 4' --shuffle --samples 1000
  streampipe preview shards/ --out sheet.png
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_urls(parser)
    add_index(parser)
    parser.add_argument(
        "--out", default="preview.html", metavar="FILE", help=".html, or .png, .jpg, .webp for a sheet (preview.html)"
    )
    parser.add_argument("--samples", type=positive, metavar="N", help="how many (a page 200, a sheet 24)")
    parser.add_argument("--where", metavar="CONDITION", help="only those, as in 'width >= 512 and aesthetic > 5'")
    parser.add_argument("--shuffle", action="store_true", help="samples from all over, in place of the first ones")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of shuffle and crops: the training's (0)")
    parser.add_argument("--edge", type=positive, metavar="PIXELS", help="of a small picture (192; of a sheet 256)")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")
    page = parser.add_argument_group("of a page")
    page.add_argument("--bucket", metavar="NAME", help="the buckets of the training: sdxl, sd15, pixart, photo")
    page.add_argument("--size", type=positive, metavar="PIXELS", help="or the edge of its squares")
    page.add_argument("--crop", choices=("center", "random"), help="what it takes of an image (center)")
    page.add_argument("--flip", type=float, metavar="SHARE", help="of samples that it mirrors (0)")
    page.add_argument("--epoch", type=whole, metavar="E", help="whose crops (0)")
    page.add_argument("--threads", type=whole, metavar="N", help="that decode (2)")
    sheet = parser.add_argument_group("of a sheet")
    sheet.add_argument("--columns", type=positive, metavar="N", help="images side by side (6)")
