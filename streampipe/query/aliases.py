"""One name for what the public datasets call by many: sizes, scores and captions.

The names are those of img2dataset's output, LAION, COYO-700M, CC12M (pixparse), DataComp, DALL-E 3 1M,
text-to-image-2M and data-archetype's bucketed shards, as their cards and loaders have them.
"""

from __future__ import annotations

CAPTION_KEYS = ("txt", "caption", "text", "prompt", "TEXT", "long_caption", "top_caption", "re_caption")
"""Where a caption is looked for: members first, then values of the json member; the first that is there."""

_SIZE = {
    "width": ("width", "json.width", "w"),
    "height": ("height", "json.height", "h"),
}
COLUMNS: dict[str, tuple[str, ...]] = {
    **_SIZE,
    "original_width": ("original_width", "WIDTH", *_SIZE["width"]),
    "original_height": ("original_height", "HEIGHT", *_SIZE["height"]),
    "aesthetic": (
        "aesthetic",
        "AESTHETIC_SCORE",
        "aesthetic_score",
        "aesthetic_score_laion_v2",
        "stability_metadata.aes_scorelv2",
    ),
    "watermark": ("watermark", "pwatermark", "watermark_score", "stability_metadata.p_watermarkdf"),
    "nsfw": (
        "nsfw",
        "punsafe",
        "nsfw_score_opennsfw2",
        "nsfw_score_gantman",
        "stability_metadata.p_nsfwdf",
        "NSFW",
    ),
    "similarity": (
        "similarity",
        "clip_similarity_vitl14",
        "clip_l14_similarity_score",
        "clip_similarity_vitb32",
        "clip_b32_similarity_score",
    ),
    "language": ("language", "LANGUAGE", "detected_language"),
    "caption": CAPTION_KEYS[1:],
}
"""The columns that a name of a condition may stand for, best first; a column of that very name comes first."""


def columns_of(name: str) -> tuple[str, ...]:
    """The columns that a name may stand for: its aliases, or itself.

    >>> columns_of("watermark")[:2], columns_of("my_score")
    (('watermark', 'pwatermark'), ('my_score',))
    """
    return COLUMNS.get(name, (name,))
