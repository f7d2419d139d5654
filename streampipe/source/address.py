"""Where an HTTP request goes: URLs read by one parser, and addresses that only this machine can reach.

What a check reads of a URL and what the connection does with it must be one thing: two parsers disagree about
``http://169.254.169.254\\@127.0.0.1/``, and one of them is then the attacker's. So a URL is parsed here, once, by the
parser of the library that connects (urllib3); what it makes of it is written out again, and that text is requested.
Names are checked twice: before the request (a proxy may be the one who resolves them), and by the address that a
connection really has, before anything is sent: a name may be resolved to something else the second time.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote, urljoin

import urllib3
from urllib3.util import parse_url

from streampipe.errors import ConfigError
from streampipe.printable import printable
from streampipe.source.location import redact

_PORTS = {"http": 80, "https": 443}
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]")
_METADATA = [
    ipaddress.ip_network(each)
    for each in (
        "169.254.169.254/32",  # most clouds
        "169.254.170.2/32",  # AWS containers
        "169.254.170.23/32",  # AWS pods
        "168.63.129.16/32",  # Azure's machine agent
        "100.100.100.200/32",  # Alibaba
        "192.0.0.192/32",  # Oracle
        "fd00:ec2::/32",  # AWS: ::254 machines, ::23 pods
        "fd20:ce::254/128",  # Google
        "fd00:42::42/128",  # Scaleway
    )
]
_NAMES = ("metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal")
_CARRIERS = [  # IPv6 networks whose addresses hold an IPv4 address, and how many bits stand behind it
    (ipaddress.IPv6Network("::/96"), 0),  # compatible
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),  # mapped
    (ipaddress.IPv6Network("::ffff:0:0:0/96"), 0),  # translated (SIIT)
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),  # NAT64
    (ipaddress.IPv6Network("64:ff9b:1::/48"), 0),  # NAT64, local prefixes
    (ipaddress.IPv6Network("2002::/16"), 80),  # 6to4
]
Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


class Address(NamedTuple):
    """An http(s) URL, as the connection reads it: ``url`` is what is requested, without user and fragment; ``target``
    is its path with the query, ``named`` what it calls the host."""

    scheme: str
    host: str
    port: int
    url: str
    user: str | None
    target: str
    named: str


@lru_cache(4096)  # windows of one object are asked for one after the other
def address(url: str) -> Address:
    """The parts of an http(s) URL.

    >>> address("https://me:pw@Example.org/a%20b.tar?x=1#part")[:5]
    ('https', 'example.org', 443, 'https://example.org/a%20b.tar?x=1', 'me:pw')

    Raises:
        ConfigError: it is none, or one that readers of URLs disagree about.
    """
    given = url.replace(" ", "%20")  # in names of objects spaces are common, and mean nothing else
    try:
        if _FORBIDDEN.search(given):
            raise ValueError("a backslash or a control character")
        parsed = parse_url(given)
        host = parsed.host or ""
        if parsed.scheme not in _PORTS or not host:
            raise ValueError("no scheme or no host")
        clean = parsed._replace(auth=None, fragment=None).url
        again = parse_url(clean)
        if (again.scheme, again.host, again.port, again.url) != (parsed.scheme, host, parsed.port, clean):
            raise ValueError("its parts are not clear")
    except urllib3.exceptions.HTTPError:  # whose text shows all of the URL
        raise ConfigError(f"{redact(url)} is not a URL that can be requested; check its host and port") from None
    except ValueError as error:
        raise ConfigError(f"{printable(redact(url))} is not a URL that can be requested ({error}); check it") from None
    user = None if parsed.auth is None else unquote(parsed.auth)
    port = parsed.port or _PORTS[parsed.scheme]
    bare = host.strip("[]")
    named = f"[{bare.partition('%')[0]}]" if ":" in bare else bare
    named = named if port == _PORTS[parsed.scheme] else f"{named}:{port}"
    return Address(parsed.scheme, bare, port, clean, user, again.request_uri, named)


def joined(at: str, location: str) -> str:
    """Where a ``Location`` header leads, from the URL that was answered with it.

    >>> joined("https://host/a/b.tar?x=1", "../c.tar")
    'https://host/c.tar'

    Raises:
        ConfigError: joining it would take away what makes it dangerous.
    """
    if _FORBIDDEN.search(location.replace(" ", "%20")):
        raise ConfigError(f"{printable(redact(location))} holds a backslash or a control character")
    text = quote(location.encode("latin-1", "replace"), safe="".join(map(chr, range(128))))
    return urljoin(at, text)


def same_owner(first: Address, second: Address) -> bool:
    """Whether credentials for one URL are for the other too: the same host and port, or http's and then https's."""
    if first.host != second.host:
        return False
    upgraded = (first.scheme, first.port, second.scheme, second.port) == ("http", 80, "https", 443)
    return upgraded or (first.scheme, first.port) == (second.scheme, second.port)


def is_metadata(host: str, link_local: bool = True, resolve: bool = True) -> bool:
    """Whether a host, however it is written, is where a metadata service of a cloud answers.

    Args:
        link_local: whether any link-local address counts as one.
        resolve: whether to ask for the addresses of a name.

    >>> [is_metadata(each) for each in ("0xa9fea9fe", "[::ffff:169.254.169.254]", "metadata.google.internal.", "127.1")]
    [True, True, True, False]
    """
    name = host.strip("[]").rstrip(".").lower()
    if name in _NAMES or _is_written(name, link_local):
        return True
    return resolve and any(_serves(each, link_local) for each in _addresses(name, resolve))


@lru_cache(1024)  # it is asked for each request
def _is_written(name: str, link_local: bool) -> bool:
    """Whether a host that is an address is such a one."""
    return any(_serves(each, link_local) for each in _addresses(name, resolve=False))


def only_here(host: str) -> str:
    """What is wrong with such a host, for a message, and what to do."""
    return (
        f"a link-local address, or where a cloud's metadata service is (it gives this machine's credentials); it is "
        f"not followed unless you allow it: network=sp.Network(redirects_to=({host!r},))"
    )


def _addresses(name: str, resolve: bool) -> list[Ip]:
    bare = name.partition("%")[0]  # of fe80::1%eth0
    try:
        return [ipaddress.ip_address(bare)]
    except ValueError:
        pass
    try:
        return [ipaddress.IPv4Address(socket.inet_aton(bare))]  # 2852039166, 0xa9.0xfe.0251.254
    except (OSError, ValueError):
        pass
    if not resolve:
        return []
    try:
        found = socket.getaddrinfo(name, None)
    except (OSError, UnicodeError):
        return []  # a host that cannot be found cannot be reached either; behind a proxy nobody here can know
    return [ipaddress.ip_address(str(each[4][0]).partition("%")[0]) for each in found]


def _serves(ip: Ip, link_local: bool) -> bool:
    if isinstance(ip, ipaddress.IPv6Address):
        for network, behind in _CARRIERS:
            if ip in network and _serves(ipaddress.IPv4Address(int(ip) >> behind & 0xFFFFFFFF), link_local):
                return True
        if ip.teredo is not None and _serves(ip.teredo[1], link_local):
            return True
    return (link_local and ip.is_link_local) or any(ip.version == each.version and ip in each for each in _METADATA)
