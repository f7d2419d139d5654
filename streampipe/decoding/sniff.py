"""What bytes are, by how they begin: names lie (img2dataset stores whatever it got under one suffix)."""

from __future__ import annotations

_AVIF_BRANDS = (b"avif", b"avis", b"mif1", b"miaf")


def sniff(data: bytes | memoryview) -> str | None:
    """``"JPEG"``, ``"PNG"``, ``"WEBP"``, ``"GIF"``, ``"AVIF"``, or None for anything else.

    >>> sniff(b"\\xff\\xd8\\xff\\xe0"), sniff(b"%!PS-Adobe")
    ('JPEG', None)
    """
    head = bytes(data[:12])
    if head[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if head[4:8] == b"ftyp" and head[8:12] in _AVIF_BRANDS:
        return "AVIF"
    return None
