"""Reading and writing tar archives without I/O: bytes in, members out, and the other way round."""

from streampipe.tar.compression import begun, compression_of, decompress
from streampipe.tar.header import BLOCK
from streampipe.tar.limits import Limits
from streampipe.tar.reader import Member, MissingEnd, read_members, read_range, stream_members
from streampipe.tar.writer import END, RECORD, Field, TarWriter, Written, check_key, header_bytes, padding

__all__ = [
    "BLOCK",
    "END",
    "RECORD",
    "Field",
    "Limits",
    "Member",
    "MissingEnd",
    "TarWriter",
    "Written",
    "begun",
    "check_key",
    "compression_of",
    "decompress",
    "header_bytes",
    "padding",
    "read_members",
    "read_range",
    "stream_members",
]
