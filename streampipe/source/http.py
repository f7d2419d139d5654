"""HTTP(S), by urllib3: ranges of one version of an object. Each answer is compared with what was asked for.

Every store that speaks HTTP is read here, and only here: an ``Endpoint`` says which request an object's URL becomes
(the web's as it stands, S3's signed, Google's with a token, the hub's at one commit) and what a refusal means.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, NoReturn, Protocol

import urllib3

from streampipe.errors import SourceError, StreampipeError
from streampipe.printable import printable
from streampipe.source.address import Address, address, is_metadata, joined, only_here, same_owner
from streampipe.source.connections import pools, proxy_of
from streampipe.source.failures import Ended, HttpError, changed
from streampipe.source.location import redact
from streampipe.source.network import Network
from streampipe.source.store import Answer, Memory, Pin
from streampipe.source.wire import Reply, exchange, number

PIECE = 1 << 18
_SHORT = 1 << 16
"""Bytes of a body nobody wants that are read to keep a connection."""
_MOVED = 4096
"""Redirections that are remembered."""
_ORIGINS = 256
"""Hosts whose connections are kept."""
_CONTENT_RANGE = re.compile(r"bytes +(?:(\d{1,19})-(\d{1,19})|\*)/(\d{1,19}|\*)", re.ASCII | re.IGNORECASE)
_MOST_HOPS = 5
_PERHAPS_GET = (400, 401, 403, 405, 501)
"""Refusals of HEAD that say nothing of GET: a URL may be signed for that alone, or a server know nothing else."""


class Request(NamedTuple):
    """An object's URL as HTTP: where it is asked for, and the headers that are for that host alone."""

    at: Address
    headers: Mapping[str, str]


class Endpoint(Protocol):
    """What makes requests of the URLs of one kind of store."""

    heads: bool
    """Whether HEAD is worth asking; else size and version come with the first byte."""
    settings: dict[str, Any]
    """For urllib3's pools, before our own."""

    def request(self, url: str, method: str) -> Request:
        """The request for an object."""

    def credentials(self, url: str) -> str:
        """With which credentials it asks, for a message: never their values."""

    def renew(self) -> None:
        """Forget credentials: they may have run out."""

    def version(self, headers: Mapping[str, str]) -> str | None:
        """The mark of the version that an answer is of."""

    def refusal(self, url: str, error: HttpError) -> Exception:
        """What an answer without success means, if more than its status says."""


class HttpStore:
    """Reads objects by HTTP. Connections are kept and shared by the threads of this process."""

    ranges = True
    streams = True
    pins = True

    def __init__(self, endpoint: Endpoint, network: Network) -> None:
        self.network = network
        self.worked = False
        self.endpoint = endpoint
        self._lock = threading.Lock()
        self._moved: dict[str, str] = {}  # where an object's URL led, so that not every window is sent round
        self._pools: dict[tuple[str, str, int, bool], Any] = {}
        self._no_conditions: set[str] = set()  # hosts that refuse If-Match with the version that they have

    def credentials(self, url: str) -> str:
        """What a request says of who asks."""
        return self.endpoint.credentials(url)

    def renew(self) -> None:
        """Forget credentials, connections and redirections: what was signed for a time may have run out."""
        self.endpoint.renew()
        with self._lock:
            self._moved.clear()
            self._pools.clear()

    def pin(self, url: str) -> Pin:
        """The object's size and version, without its bytes."""
        if self.endpoint.heads:
            reply = self._request("HEAD", url, {})
            if reply.status < 300 and not _encoding(reply):
                reply.finish()
                return self._found(reply, number(reply.headers.get("Content-Length")))
            if reply.status >= 300 and reply.status not in _PERHAPS_GET:
                self._refuse(reply, url)
            reply.finish()
        answer = self.get(url, 0, 1, Pin())
        for _ in answer.pieces:
            break
        return answer.pin

    def get_into(self, url: str, start: int, end: int, pin: Pin, memory: Memory) -> Answer:
        """The same, received into memory where that can be."""
        return self.get(url, start, end, pin, memory)

    def get(self, url: str, start: int, end: int | None, pin: Pin, memory: Memory | None = None) -> Answer:
        """The bytes [start, end) of the pinned version, or of any if nothing is pinned."""
        headers = {} if start == 0 and end is None else {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        wanted = self.endpoint.request(url, "GET")
        conditional = (
            pin.version is not None and pin.version.startswith('"') and wanted.at.host not in self._no_conditions
        )
        if conditional:
            headers["If-Match"] = pin.version or ""  # a strong ETag; others cannot be asked for
        reply = self._request("GET", url, headers, wanted)
        refused = reply.status == 412 and conditional
        if refused:  # another version; or it says so of the very same one
            reply.drain(_SHORT)
            del headers["If-Match"]
            reply = self._request("GET", url, headers)
        try:
            if reply.status == 416:
                return self._beyond(reply, url, start, pin)
            if reply.status not in (200, 206):
                self._refuse(reply, url)
            answer = self._answer(reply, url, start, end, pin, memory)
        except BaseException:
            reply.close()
            raise
        if refused:
            if answer.pin.mark is None:
                reply.close()
                raise changed(url, "the store has another version now")
            self._no_conditions.add(wanted.at.host)
        return answer

    def _answer(
        self, reply: Reply, url: str, start: int, end: int | None, pin: Pin, memory: Memory | None = None
    ) -> Answer:
        if encoding := _encoding(reply):
            raise SourceError(
                f"{redact(url)}: the server sends it as {printable(encoding)} although it was asked not to, so bytes "
                f"cannot be counted; switch that off at the server (the file's own suffix says .gz if it is compressed)"
            )
        whole = reply.status == 200
        if whole:
            size, until = number(reply.headers.get("Content-Length")), 0
        else:
            size, until = _check_range(reply, url, start, end)
        found = self._found(reply, size)
        check_pin(url, pin, found)
        begin = 0 if whole else start
        wanted = size if whole else until - start
        failed = partial(self._moved.pop, url, None)  # the next try is led to a mirror that may do better
        # By its own length it ends; where that is not what was asked for, or is not said, it is read with more care.
        if memory is not None and not whole and wanted is not None and reply.length == wanted:
            return Answer(begin, found, _placed(reply, start, wanted, memory, failed), False, True)
        return Answer(begin, found, _pieces(reply, wanted, failed), whole and (start > 0 or end is not None))

    def _found(self, reply: Reply, size: int | None) -> Pin:
        return Pin(size, self.endpoint.version(reply.headers), reply.headers.get("Last-Modified"))

    def _beyond(self, reply: Reply, url: str, start: int, pin: Pin) -> Answer:
        """416: right for what is empty. Not every store says the size with it, and some say it for a range that ends
        beyond the object.
        """
        size = _size_of(reply)
        found = self._found(reply, size)
        reply.drain(_SHORT)
        if size != 0 and start == 0:
            reply = self._request("GET", url, {})
            if reply.status != 200:
                self._refuse(reply, url)
            return self._answer(reply, url, 0, None, pin)
        check_pin(url, pin, found)
        if start == 0:
            return Answer(0, found, iter(()))
        raise SourceError(
            f"{redact(url)}: the server has no byte {start} (HTTP 416), the object has {size} bytes; check the URL and "
            f"the server"
        )

    def _refuse(self, reply: Reply, url: str) -> NoReturn:
        headers = {name.title(): value for name, value in reply.headers.items()}
        error = HttpError(reply.status, printable(reply.reason), headers, reply.drain(_SHORT))
        raise self.endpoint.refusal(url, error)

    def _request(self, method: str, url: str, headers: Mapping[str, str], wanted: Request | None = None) -> Reply:
        wanted = wanted or self.endpoint.request(url, method)
        at = self._moved.get(url, wanted.at.url)
        remembered = at != wanted.at.url
        for _ in range(_MOST_HOPS + 1):
            to = address(at)
            sent = {"Accept-Encoding": "identity", "User-Agent": "streampipe", **headers}
            if same_owner(wanted.at, to):  # credentials are for the host they were given for
                sent.update(wanted.headers)
            try:
                reply = self._send(method, to, sent, given=to.host == wanted.at.host)
            except BaseException:
                self._moved.pop(url, None)
                raise
            # What is signed for a time runs out, and a mirror may be out of order.
            if remembered and reply.status >= 400 and reply.status not in (412, 416):
                remembered, at = False, wanted.at.url
                self._moved.pop(url, None)
                reply.drain(_SHORT)
                continue
            if reply.status not in (301, 302, 303, 307, 308) or "Location" not in reply.headers:
                if at != wanted.at.url and reply.status in (200, 206):
                    self._remember(url, at)
                return reply
            location = reply.headers["Location"]
            reply.drain(_SHORT)
            at = self._check_hop(url, to, location)
        raise SourceError(f"{redact(url)}: more than {_MOST_HOPS} redirections; check the URL")

    def _remember(self, url: str, at: str) -> None:
        with self._lock:
            self._moved[url] = at
            while len(self._moved) > _MOVED:
                self._moved.pop(next(iter(self._moved)))

    def _check_hop(self, url: str, at: Address, location: str) -> str:
        """A server may send us on to the web only, not to a weaker scheme, nor to what only this machine can reach."""
        try:
            target = joined(at.url, location)
        except StreampipeError as error:
            raise SourceError(f"{redact(url)}: a redirection of the server is not followed: {error}") from None
        how = f"{redact(url)}: the server redirects to {printable(redact(target))}, "
        if not target.startswith(("http:", "https:")) or (at.scheme == "https" and not target.startswith("https:")):
            raise SourceError(
                f"{how}which leaves {at.scheme}; this is not followed: give the URL itself if you trust it"
            )
        try:
            new = address(target)
        except StreampipeError as error:
            raise SourceError(f"{how}which is not followed: {error}") from None
        if new.host not in self.network.redirects_to and is_metadata(new.host):
            raise SourceError(f"{how}{only_here(new.host)}")
        return new.url

    def _send(self, method: str, to: Address, headers: Mapping[str, str], given: bool) -> Reply:
        if to.host not in self.network.redirects_to and is_metadata(to.host, link_local=not given, resolve=False):
            raise SourceError(f"{redact(to.url)} is {only_here(to.host)}")
        return exchange(self._pool(to, given), method, to, headers)

    def _pool(self, to: Address, given: bool) -> Any:
        """``given``: for the host that the user named; where a server leads us, fewer addresses will do."""
        origin = to.scheme, to.host, to.port, given
        if (found := self._pools.get(origin)) is None:
            proxy = proxy_of(to)  # looked up once: to ask the environment takes a millisecond
            timeout = urllib3.Timeout(connect=self.network.connect, read=self.network.stall)
            settings: dict[str, Any] = {"timeout": timeout, "maxsize": self.network.requests, **self.endpoint.settings}
            made = pools(proxy, self.network.redirects_to, not given, **settings)
            with self._lock:
                found = self._pools.setdefault(origin, made.connection_from_host(to.host, to.port, to.scheme))
                while len(self._pools) > _ORIGINS:
                    self._pools.pop(next(iter(self._pools)))
        return found


def _encoding(reply: Reply) -> str:
    """What an answer's bytes were made into on their way, so that they cannot be counted; nothing if they were not."""
    way = reply.headers.get("Transfer-Encoding", "").lower()
    if way not in ("", "chunked", "identity"):
        return str(way)
    found = reply.headers.get("Content-Encoding", "").lower()
    return "" if found in ("identity", "aws-chunked") else str(found)  # the last is S3's word for how it was uploaded


def check_pin(url: str, pin: Pin, found: Pin) -> None:
    """An answer of another version than the pinned one.

    Raises:
        ShardChanged: it is.
    """
    if how := pin.differs(found):
        raise changed(url, how)


def _pieces(reply: Reply, wanted: int | None, failed: Callable[[], object]) -> Iterator[bytes]:
    """The body, as it comes. A body that is shorter or longer than said is an error."""
    done, finished = 0, False
    try:
        while wanted is None or done < wanted:
            # what has come is ours, also where the connection breaks before the next byte
            piece = reply.read(PIECE if wanted is None else min(PIECE, wanted - done))
            if not piece:
                break
            done += len(piece)
            yield piece
        if wanted is not None and done < wanted:
            raise Ended(f"{done} of {wanted} bytes came")
        finished = True
    finally:
        if finished:
            reply.finish()
        else:
            failed()
            reply.close()


def _placed(reply: Reply, start: int, wanted: int, memory: Memory, failed: Callable[[], object]) -> Iterator[bytes]:
    """How much came each time, into memory of the reader's. What came is his, also where the connection breaks then."""
    done = 0
    try:
        while done < wanted:
            count, error = _filled(reply, memory, start + done, wanted - done, PIECE if done else 1)
            done += count
            if count:
                yield range(count)  # type: ignore[misc]  # only how long it is is told
            if error is not None or not count:
                raise error or Ended(f"{done} of {wanted} bytes came")
    finally:
        if done == wanted:
            reply.finish()
        else:
            failed()
            reply.close()


def _filled(reply: Reply, memory: Memory, at: int, most: int, least: int) -> tuple[int, OSError | None]:
    """How many bytes came, ``least`` or all there are, and what ended it before.

    A connection gives little at a time, and to hand on each of these costs more than to receive it.
    """
    count = 0
    try:
        while count < min(least, most):
            got = reply.receive(memory(at + count), most - count)
            if not got:
                break
            count += got
    except OSError as error:  # what came before it is the reader's
        return count, error
    return count, None


def _check_range(reply: Reply, url: str, start: int, end: int | None) -> tuple[int | None, int]:
    """How large the object is, and where an answer ends that begins where it was asked to. It may be shorter: the rest
    is asked for again.

    Raises:
        SourceError: it answers something else.
    """
    said = reply.headers.get("Content-Range", "")
    found = _CONTENT_RANGE.fullmatch(said)
    if found is not None and found[1] is not None:
        begins, ends, size = int(found[1]), int(found[2]) + 1, None if found[3] == "*" else int(found[3])
        last = min(size if size is not None else ends, end if end is not None else ends)
        if begins == start < ends <= last:
            return size, ends
    raise SourceError(
        f"{redact(url)}: bytes {start} to {'the end' if end is None else end - 1} were asked for, the server "
        f"answered with {said or None!r}; it cannot be read from this server"
    )


def _size_of(reply: Reply) -> int | None:
    found = _CONTENT_RANGE.fullmatch(reply.headers.get("Content-Range", ""))
    return int(found[3]) if found and found[3] != "*" else None
