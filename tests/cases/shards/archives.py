"""Archives written byte by byte: what writers make that tarfile cannot be told to make."""

import tarfile

BLOCK = 512


def header(name, size=0, kind=b"0", link="", **fields):
    """A ustar header with whatever fields are given in place of the usual ones."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.USTAR_FORMAT)


def patched(block, at, data, checksum=True):
    """A header with other bytes at a place, its checksum made right again."""
    changed = bytearray(block)
    changed[at : at + len(data)] = data
    if checksum:
        changed[148:156] = b" " * 8
        changed[148:156] = b"%06o\0 " % sum(changed)
    return bytes(changed)


def padded(data, fill=b"\0"):
    """Data filled up to whole blocks."""
    return data + fill * (-len(data) % BLOCK)


def record(keyword, value):
    """A PAX record."""
    rest = b" " + keyword + b"=" + value + b"\n"
    size = len(rest)
    while len(b"%d" % size) + len(rest) != size:
        size = len(b"%d" % size) + len(rest)
    return b"%d" % size + rest


def pax(records, kind=b"x", fill=b"\0"):
    """A PAX header of records."""
    return header("PaxHeader/x", len(records), kind) + padded(records, fill)


def member(name, data=b"hi", **fields):
    """A file."""
    return header(name, len(data), **fields) + padded(data)


END = bytes(2 * BLOCK)
