"""HTTP(S), by urllib3: ranges of one version of an object, checked against what was asked for."""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from http.client import IncompleteRead
from typing import Any, NamedTuple, NoReturn
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from streampipe.errors import ConfigError, SourceError
from streampipe.source.failures import Ended, HttpError, changed
from streampipe.source.headers import pools
from streampipe.source.location import redact
from streampipe.source.network import Network

PIECE = 1 << 18
_SHORT = 1 << 16
"""Bytes of a body nobody wants that are read to keep a connection."""
_MOVED = 4096
"""Redirections that are remembered."""
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
_MOST_HOPS = 5
_METADATA = ("fd00:ec2::254", "100.100.100.200")  # of clouds that do not use a link-local address (AWS IPv6, Alibaba)


class Pin(NamedTuple):
    """One version of an object: its size and a mark of it, as far as the store says."""

    size: int | None = None
    version: str | None = None


class Answer(NamedTuple):
    """Bytes on their way: ``pieces`` begin at byte ``start`` of the object; ``whole``: ranges were ignored."""

    start: int
    pin: Pin
    pieces: Iterator[bytes]
    whole: bool = False


class HttpStore:
    """Reads objects of web servers. Connections are kept and shared by the threads of this process."""

    ranges = True
    streams = True

    def __init__(self, network: Network, headers: Mapping[str, str] | None = None, **options: Any) -> None:
        if options:
            raise ConfigError(
                f"storage_options for http take headers= only, not {', '.join(sorted(options))}; for anything else "
                f"give opener="
            )
        self.network = network
        self.worked = False
        self.headers = dict(headers or {})  # for the host they were given for, and no other
        for name, value in self.headers.items():
            if not isinstance(value, str) or not value.isprintable() or not value.isascii():
                raise ConfigError(f"the header {name} of storage_options is no line of ASCII text")
        self._lock = threading.Lock()
        self._moved: dict[str, str] = {}  # where an object's URL led, so that not every window is sent round
        self._pools: dict[str | None, Any] = {}

    def credentials(self, url: str) -> str:
        """What a request says of who asks."""
        used = next((name for name in self.headers if name.lower() in ("authorization", "cookie")), None)
        if used:
            return f"with the header {used} of storage_options"
        return "as the user named in the URL" if _auth(url) else "without credentials (storage_options headers=)"

    def renew(self) -> None:
        """Forget connections and redirections: what was signed for a time may have run out."""
        with self._lock:
            self._moved.clear()
            self._pools.clear()

    def pin(self, url: str) -> Pin:
        """The object's size and version, without its bytes."""
        response = self._request("HEAD", url, {})
        if response.status in (400, 401, 403, 405, 501):  # a URL may be signed for GET alone, a server know no HEAD
            _put_away(response)
            answer = self.get(url, 0, 1, Pin())
            for _ in answer.pieces:
                break
            return answer.pin
        if response.status >= 400:
            self._refuse(response)
        length = response.headers.get("Content-Length")
        _put_away(response)
        return Pin(int(length) if length and length.isdigit() else None, _version(response))

    def get(self, url: str, start: int, end: int | None, pin: Pin) -> Answer:
        """The bytes [start, end) of the pinned version, or of any if nothing is pinned."""
        headers = {} if start == 0 and end is None else {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        if pin.version and pin.version.startswith('"'):  # a strong ETag; others cannot be asked for
            headers["If-Match"] = pin.version
        response = self._request("GET", url, headers)
        try:
            if response.status == 416 and _size_of(response) is not None:
                return self._beyond(response, url, start, pin)
            if response.status not in (200, 206):
                self._refuse(response)
            return self._answer(response, url, start, end, pin)
        except BaseException:
            response.close()
            raise

    def _answer(self, response: Any, url: str, start: int, end: int | None, pin: Pin) -> Answer:
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if encoding not in ("", "identity"):
            raise SourceError(
                f"{redact(url)}: the server sends it as {encoding} although it was asked not to, so bytes cannot be "
                f"counted; switch that off at the server (the file's own suffix says .gz if it is compressed)"
            )
        whole = response.status == 200
        length = response.headers.get("Content-Length")
        size = (int(length) if length and length.isdigit() else None) if whole else _size_of(response)
        until = 0 if whole else _check_range(response, url, start, end)
        found = Pin(size, _version(response))
        check_pin(url, pin, found)
        begin = 0 if whole else start
        wanted = size if whole else until - start
        return Answer(begin, found, _pieces(response, wanted), whole and (start > 0 or end is not None))

    def _beyond(self, response: Any, url: str, start: int, pin: Pin) -> Answer:
        """416: right for what is empty, wrong anywhere else."""
        size = _size_of(response)
        found = Pin(size, _version(response))
        _put_away(response)
        check_pin(url, pin, found)
        if start == 0 and size == 0:
            return Answer(0, found, iter(()))
        raise SourceError(
            f"{redact(url)}: the server has no byte {start} (HTTP 416), the object has {size} bytes; check the URL and "
            f"the server"
        )

    def _refuse(self, response: Any) -> NoReturn:
        headers = {"Retry-After": response.headers.get("Retry-After", "")}
        _put_away(response)
        raise HttpError(response.status, response.reason or "", headers)

    def _request(self, method: str, url: str, headers: Mapping[str, str]) -> Any:
        at = self._moved.get(url, url)
        remembered = at != url
        for _ in range(_MOST_HOPS + 1):
            sent = {"Accept-Encoding": "identity", "User-Agent": "streampipe", **headers}
            if urlsplit(at).netloc == urlsplit(url).netloc:  # credentials are for the host they were given for
                sent = {**_auth(url), **sent, **self.headers}
            response = self._pool(at).request(
                method, at, headers=sent, redirect=False, retries=False, preload_content=False
            )
            if remembered and response.status in (400, 401, 403, 404, 410):  # what is signed for a time runs out
                remembered, at = False, url
                self._moved.pop(url, None)
                _put_away(response)
                continue
            if response.status not in (301, 302, 303, 307, 308):
                if at != url and response.status in (200, 206):
                    self._remember(url, at)
                return response
            target = urljoin(at, response.headers.get("Location", ""))
            _put_away(response)
            self._check_hop(url, at, target)
            at = target
        raise SourceError(f"{redact(url)}: more than {_MOST_HOPS} redirections; check the URL")

    def _remember(self, url: str, at: str) -> None:
        with self._lock:
            self._moved[url] = at
            while len(self._moved) > _MOVED:
                self._moved.pop(next(iter(self._moved)))

    def _check_hop(self, url: str, at: str, target: str) -> None:
        """A server may send us on to the web only, not to a weaker scheme, nor to what only this machine can reach."""
        old, new = urlsplit(at), urlsplit(target)
        how = f"{redact(url)}: the server redirects to {redact(target)}, "
        if new.scheme not in ("http", "https") or (old.scheme == "https" and new.scheme != "https"):
            raise SourceError(
                f"{how}which leaves {old.scheme}; this is not followed: give the URL itself if you trust it"
            )
        host = new.hostname or ""
        if host in self.network.redirects_to:
            return
        if _is_link_local(host):
            raise SourceError(
                f"{how}a link-local address (metadata services live there); this is not followed unless you allow it: "
                f"network=sp.Network(redirects_to=({host!r},))"
            )

    def _pool(self, url: str) -> Any:
        scheme, host = urlsplit(url).scheme, urlsplit(url).hostname or ""
        proxy = None if proxy_bypass(host) else getproxies().get(scheme)
        with self._lock:
            if proxy not in self._pools:
                timeout = urllib3.Timeout(connect=self.network.connect, read=self.network.stall)
                settings: dict[str, Any] = {"timeout": timeout, "maxsize": self.network.requests}
                self._pools[proxy] = pools(proxy, **settings)
            return self._pools[proxy]


def _put_away(response: Any) -> None:
    """Let a response go whose body nobody wants. One that is long or endless costs its connection."""
    length = response.headers.get("Content-Length", "")
    if response.length_remaining == 0 or (length.isdigit() and int(length) <= _SHORT):
        response.drain_conn()
        response.release_conn()
    else:
        response.close()


def _auth(url: str) -> dict[str, str]:
    """The header of a user and password in a URL."""
    user, there, _ = urlsplit(url).netloc.rpartition("@")
    return urllib3.make_headers(basic_auth=unquote(user)) if there else {}


def check_pin(url: str, pin: Pin, found: Pin) -> None:
    """An answer of another version than the pinned one.

    Raises:
        ShardChanged: it is.
    """
    if pin.version and found.version and pin.version != found.version:
        raise changed(url, f"version {pin.version} became {found.version}")
    if pin.size is not None and found.size is not None and pin.size != found.size:
        raise changed(url, f"{pin.size} bytes became {found.size}")


def _pieces(response: Any, wanted: int | None) -> Iterator[bytes]:
    """The body, as it comes. A body that is shorter or longer than said is an error."""
    done, finished = 0, False
    try:
        while wanted is None or done < wanted:
            # read1: what has come is ours, also where the connection breaks before the next byte
            piece = response.read1(PIECE if wanted is None else min(PIECE, wanted - done), decode_content=False)
            if not piece:
                break
            done += len(piece)
            yield piece
        if wanted is not None and done < wanted:
            raise Ended(f"{done} of {wanted} bytes came")
        finished = True
    except urllib3.exceptions.IncompleteRead as error:
        raise Ended(f"the connection ended early: {error}") from error
    except urllib3.exceptions.ProtocolError as error:
        if any(isinstance(each, IncompleteRead) for each in error.args):
            raise Ended(f"the connection ended early: {error}") from error
        raise
    finally:
        if finished and response.length_remaining in (0, None):
            response.release_conn()
        else:
            response.close()


def _check_range(response: Any, url: str, start: int, end: int | None) -> int:
    """Where an answer ends that begins where it was asked to.

    Raises:
        SourceError: it answers something else.
    """
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    size = _size_of(response)
    if found is not None and found[1] is not None:
        begins, ends = int(found[1]), int(found[2]) + 1
        last = min(size if size is not None else ends, end if end is not None else ends)
        if begins == start < ends == last:
            return ends
    raise SourceError(
        f"{redact(url)}: bytes {start} to {'the end' if end is None else end - 1} were asked for, the server "
        f"answered with {response.headers.get('Content-Range')!r}; it cannot be read from this server"
    )


def _size_of(response: Any) -> int | None:
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return int(found[3]) if found and found[3] != "*" else None


def _version(response: Any) -> str | None:
    found: str | None = response.headers.get("ETag") or response.headers.get("Last-Modified")
    return found


def _is_link_local(host: str) -> bool:
    try:
        addresses = [host] if _is_address(host) else [str(each[4][0]) for each in socket.getaddrinfo(host, None)]
    except OSError:
        return False  # a host that cannot be found cannot be reached either
    return any(_serves_metadata(ipaddress.ip_address(each.partition("%")[0])) for each in addresses)


def _serves_metadata(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    inner = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (inner or address).is_link_local or str(inner or address) in _METADATA


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
