"""The codecs that there are: the built-in ones, and those that other packages bring.

Five are always used. The others are used where ``decode(formats=)`` names them: each is one more parser that hostile
bytes could reach. A package brings codecs by entry points of the group ``streampipe.codecs``, each an instance or a
class, under the name that ``formats=`` is given; one of your own can also be given as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache
from importlib.metadata import entry_points

from streampipe.decoding.codec import HEAD, Codec, Data
from streampipe.decoding.jpeg import Jpeg
from streampipe.decoding.more import Bmp, Heic, Jpeg2000, JpegXl, Tiff
from streampipe.decoding.png import Png
from streampipe.decoding.web import Avif, Gif, Webp
from streampipe.errors import ConfigError

GROUP = "streampipe.codecs"
DEFAULT: tuple[Codec, ...] = (Jpeg(), Png(), Webp(), Gif(), Avif())
"""Those that are always used."""
OPTIONAL: tuple[Codec, ...] = (Bmp(), Tiff(), Jpeg2000(), Heic(), JpegXl())
"""Those that must be asked for by name."""
ALL = tuple(each.name for each in OPTIONAL)
"""``formats`` for who wants to decode whatever there is."""
BUILT_IN: tuple[Codec, ...] = DEFAULT + OPTIONAL
Formats = tuple["str | Codec", ...]


def codecs_of(formats: Iterable[str | Codec] = ()) -> tuple[Codec, ...]:
    """The codecs that are always used, and those that are asked for: by name, or as they are.

    Raises:
        ConfigError: there is none of that name; or what was given is no codec.

    >>> [each.name for each in codecs_of(("tiff",))]
    ['jpeg', 'png', 'webp', 'gif', 'avif', 'tiff']
    """
    if isinstance(formats, tuple) and not formats:
        return DEFAULT
    if isinstance(formats, str) or not isinstance(formats, Collection):
        meant = (formats if isinstance(formats, (str, Codec)) else "tiff",)
        raise ConfigError(f"formats is a tuple of names or codecs, as in formats={meant!r}, not {formats!r:.80}")
    found = list(DEFAULT)
    for each in formats:
        codec = _named(each.lower()) if isinstance(each, str) else each
        if not isinstance(codec, Codec):
            raise ConfigError(f"{codec!r} is no codec: it lacks methods of streampipe.decoding.Codec")
        if codec not in found:
            found.append(codec)
    return tuple(found)


def recognise(data: Data, codecs: Iterable[Codec] = DEFAULT) -> Codec | None:
    """The codec of the format that bytes are of, by how they begin: names lie (img2dataset stores whatever it got under
    one suffix).

    >>> recognise(b"\\xff\\xd8\\xff\\xe0").name, recognise(b"%!PS-Adobe")
    ('jpeg', None)
    """
    head = bytes(data[:HEAD])
    for each in codecs:
        if each.recognises(head):
            return each
    return None


@lru_cache(maxsize=64)
def _named(name: str) -> Codec:
    for codec in BUILT_IN:
        if codec.name == name:
            return codec
    theirs = {each.name.lower(): each for each in entry_points(group=GROUP)}
    if name not in theirs:
        known = [each.name for each in BUILT_IN] + sorted(theirs)
        raise ConfigError(f"there is no image format {name!r}: choose from {', '.join(known)}, or give a codec")
    loaded = theirs[name].load()
    made: Codec = loaded() if isinstance(loaded, type) else loaded
    return made
