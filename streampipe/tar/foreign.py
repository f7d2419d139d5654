"""What a file is that is called a shard but is none, by its first bytes; said in the error, with what to do."""

from __future__ import annotations

_IMAGE = "an image; give the folder that it lies in: it is streamed as it is, or packed by streampipe pack"
_KNOWN = (
    (b"version https://git-lfs", "a Git LFS pointer; fetch what it points to: git lfs pull"),
    (b"PK\x03\x04", "a zip archive; unpack it, and pack it with tar --sort=name"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it, and pack it with tar --sort=name"),
    (b"Rar!", "a rar archive; unpack it, and pack it with tar --sort=name"),
    (b"\x04\x22\x4d\x18", "compressed with lz4, which is not read here; decompress it: lz4 -d"),
    (b"\x1f\x9d", "compressed with compress (.Z), which is not read here; decompress it: gzip -d"),
    (b"LZIP", "compressed with lzip, which is not read here; decompress it: lzip -d"),
    (b"\x89LZO", "compressed with lzop, which is not read here; decompress it: lzop -d"),
    (b"\xff\xd8\xff", _IMAGE),
    (b"\x89PNG", _IMAGE),
    (b"RIFF", _IMAGE),
    (b"GIF8", _IMAGE),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\0\x05\x16\x07", "an AppleDouble file (._NAME), which macOS puts beside others; delete it"),
    (b"<?xml", "an XML text (an answer of a store, saved as a shard?); fetch the shard again"),
    (b"<!DOCTYPE", "a web page, saved as a shard; fetch the shard again"),
    (b"<!doctype", "a web page, saved as a shard; fetch the shard again"),
    (b"<html", "a web page, saved as a shard; fetch the shard again"),
)


def what_it_is(head: bytes) -> str | None:
    """A name for what begins so; None where it is not known.

    >>> what_it_is(b"PAR1...")
    "a Parquet file; it begins b'PAR1...'"
    """
    known = next((what for magic, what in _KNOWN if head.lstrip(b" \r\n\t\xef\xbb\xbf").startswith(magic)), None)
    return known and f"{known}; it begins {head[:32]!r}"
