"""Words that options take, where those who know what they mean would have to be imported for them."""

from __future__ import annotations

LAYOUTS = ("auto", "plain", "kohya", "classes", "tables", "pairs", "ai-toolkit", "img2dataset")
FORMATS = ("jpg", "webp", "png")
BUCKETS = ("sdxl", "sd15", "sdxl-published", "pixart", "photo")
MISSING = ("drop", "keep", "error")
ENGINES = ("local", "ray")
