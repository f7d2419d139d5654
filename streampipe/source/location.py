"""Where bytes lie: which URLs are allowed, which are local, and how a URL is shown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from streampipe.errors import ConfigError
from streampipe.printable import printable

SCHEMES = frozenset(("file", "http", "https", "s3", "gs", "gcs", "az", "abfs", "abfss", "hf", "memory"))
"""What may be read without being asked for by name: object stores, the web, files. Others may do more than read."""

# What ends in an @ before the path. A password with / ? # in it ends the host there, and stands where a port should.
_USER = re.compile(r"://([^/?#]*@|[^/?#@:\[]*:(?!\d*(?:[/?#]|\Z))[^@]*@)")
# A password that begins with digits and a slash looks like a port. Hosts with ports have a dot in them, or this name.
_PERHAPS = re.compile(r"://((?!localhost:)[^/?#@:\[.]+:\d+[/?#][^@]*@)")
_BEHIND = re.compile(r"[?#].*", re.DOTALL)
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)(?:://|::)")
_CHAIN = re.compile(r"::(?![^\[\]]*\])")  # but not within the brackets of an IPv6 address
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s'\"<>)]+")


def redact(url: str) -> str:
    """The URL without user name, password, query and fragment, and with nothing that a terminal takes for an order.

    >>> redact("https://me:secret@host/a.tar?token=abc")
    'https://host/a.tar'
    >>> redact("data/a.tar")
    'data/a.tar'
    """
    shown = "::".join(_shown(part) if "://" in part else part for part in _CHAIN.split(url))
    return printable(shown, None)


def _shown(part: str) -> str:
    return _BEHIND.sub("", _PERHAPS.sub("://...@", _USER.sub("://", part)))


def secrets_of(url: str) -> list[str]:
    """The parts of a URL that ``redact`` leaves out: user name with password, query, fragment.

    >>> secrets_of("https://me:pw@host/a.tar?token=abc")
    ['me:pw@', 'token=abc']
    """
    if "://" not in url:
        return []
    users = _USER.findall(url) or _PERHAPS.findall(url)
    return [*users, *re.findall(r"[?#](.+)", _PERHAPS.sub("://", _USER.sub("://", url)))]


def redacted(text: str, url: str) -> str:
    """A backend's message with every URL in it redacted, and what is secret in ``url`` wherever it stands.

    >>> redacted("GET https://h/a?sig=1 failed", "https://h/a?sig=1")
    'GET https://h/a failed'
    """
    text = text.replace(url, redact(url))
    for secret in secrets_of(url):
        text = text.replace(secret, "...")
    return _URL.sub(lambda found: redact(found[0]), text)


def is_chain(url: str) -> bool:
    """Whether a URL is several of fsspec's, one within the other: ``simplecache::s3://...``."""
    return _CHAIN.search(url) is not None


def parts_of(url: str) -> tuple[str, str, str]:
    """A URL, or of several within each other the one whose path is meant, between what stands before and behind it.

    >>> parts_of("simplecache::zip://a.tar::s3://b/c.zip")
    ('simplecache::', 'zip://a.tar', '::s3://b/c.zip')
    """
    parts = _CHAIN.split(url)
    number = next((i for i, part in enumerate(parts) if "://" in part), 0)
    before, behind = parts[:number], parts[number + 1 :]
    return "".join(f"{part}::" for part in before), parts[number], "".join(f"::{part}" for part in behind)


def has_query(url: str) -> bool:
    """Whether a URL ends in a query, such as a signature: then no other object can be reached by changing its path."""
    return "://" in url and "?" in url


def scheme_of(url: str) -> str:
    """The scheme of a URL in lower case; ``file`` for a path."""
    found = _SCHEME.match(url)
    return found[1].lower() if found else "file"


def local_path(url: str) -> str | None:
    """The path of a local file's URL; None for any other URL."""
    if url.startswith("file://"):
        return url[len("file://") :]
    return None if _SCHEME.match(url) or url.startswith("pipe:") else url


def check_scheme(url: str, more: Sequence[str] = ()) -> None:
    """Refuse what the allow-list does not hold.

    Raises:
        ConfigError: the URL is a command, or of a scheme that is not allowed.
    """
    if url.startswith(("pipe:", "exec:")):
        raise ConfigError(
            "a URL that is a command (pipe:) is never run; "
            "give opener=, a function of yours from a URL to a binary file"
        )
    parts = _CHAIN.split(url)
    for part in parts:
        chained = len(parts) > 1 and "://" not in part  # fsspec's chaining: a backend by its mere name
        scheme = part.lower() if chained else scheme_of(part)
        if (chained or scheme not in SCHEMES) and scheme not in more:
            raise ConfigError(
                f"{redact(url)}: URLs of scheme {scheme!r} are not read unless you allow them: "
                f"network=sp.Network(schemes=({scheme!r},)); without that: {', '.join(sorted(SCHEMES))}"
            )
