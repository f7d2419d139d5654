"""Every error that streampipe raises.

::

    StreampipeError
    |- ConfigError            the call itself is wrong: arguments that cannot work together
    |- SourceError            the bytes of a shard could not be had
    |  |- ShardMissing        there is nothing at this URL
    |  |- AccessDenied        the store refused; the credentials in use are named, never shown
    |  |- SourceUnavailable   every retry was used up
    |  |- ShardChanged        the object was replaced while it was read
    |  `- IndexMismatch       an index is damaged, or does not fit its shard
    |- ShardError             the bytes came, but they are not a whole, well-formed archive
    |  |- CorruptShard        a checksum, a number or the structure is wrong
    |  |- TruncatedShard      it ends before its end marker
    |  |- UnsupportedMember   a link, a sparse file or a device: its bytes are not in the archive
    |  |- UnsafeName          an absolute name, a '..', a NUL or a line break in a name
    |  |- DuplicateKey        a field twice in one sample, or a key twice in one shard
    |  `- LimitExceeded       a member, header or sample larger than the limits allow
    |- SampleError            one sample is bad; the shard around it is sound
    |  |- DecodeError         a field's bytes are not what they claim to be
    |  |- UnsafeFormat        decoding this field could run code (pickle, .pth, object arrays)
    |  `- StageError          a stage, or a function given to one, raised
    |- TooManyErrors          more was skipped than the policy allows
    `- PackError              a folder could not be written as shards
       |- NameCollision       two files would become the same member
       `- OutputBusy          the output folder holds other shards, or another run is writing there

A message is one sentence: what, where (shard, byte, key, stage), how much, what to do next. An error is built from that
one string alone, because a DataLoader worker hands over nothing but the type and the text.
"""

from streampipe.printable import printable


class StreampipeError(Exception):
    """The root of the tree; catch it to catch everything that streampipe raises by itself.

    What its text quotes of shards and servers is shown as what it is: no escape sequence reaches a terminal.

    >>> StreampipeError("key '\\x1b[2J'").args
    ("key '\\\\x1b[2J'",)
    """

    def __init__(self, text: str = "") -> None:
        super().__init__(printable(str(text), None, keep="\n\t"))


class ConfigError(StreampipeError, ValueError):
    """The call itself is wrong: an argument, or arguments that cannot work together."""


class SourceError(StreampipeError, OSError):
    """The bytes of a shard could not be had."""


class ShardMissing(SourceError, FileNotFoundError):
    """There is nothing at this URL."""


class AccessDenied(SourceError, PermissionError):
    """The store refused access."""


class SourceUnavailable(SourceError):
    """Every retry was used up."""


class ShardChanged(SourceError):
    """The object was replaced while it was being read."""


class IndexMismatch(SourceError):
    """An index is damaged, or of another shard than the one beside it."""


class ShardError(StreampipeError, ValueError):
    """The bytes came, but they are not a whole, well-formed archive."""


class CorruptShard(ShardError):
    """A checksum, a number or the structure of the archive is wrong."""


class TruncatedShard(ShardError):
    """The archive ends before its end marker."""


class UnsupportedMember(ShardError):
    """A link, sparse file or device: its bytes are not in the archive."""


class UnsafeName(ShardError):
    """A member name that is absolute, climbs with '..', or holds a NUL or a line break."""


class DuplicateKey(ShardError):
    """A field twice in one sample, or a key twice in one shard."""


class LimitExceeded(ShardError):
    """A member, header, sample or inflate ratio larger than the limits allow."""


class SampleError(StreampipeError, ValueError):
    """One sample is bad; the shard around it is sound."""


class DecodeError(SampleError):
    """A field's bytes are not what they claim to be."""


class UnsafeFormat(SampleError):
    """Decoding this field could run code: pickle, torch files, object arrays."""


class StageError(SampleError):
    """A stage, or a function given to one, raised."""


class TooManyErrors(StreampipeError):
    """More was skipped than the error policy allows."""


class PackError(StreampipeError):
    """A folder could not be written as shards."""


class NameCollision(PackError):
    """Two files would become the same member of a sample."""


class OutputBusy(PackError):
    """The output folder holds other shards, or another run is writing there."""
