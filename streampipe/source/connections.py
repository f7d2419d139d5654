"""Connections whose headers are whole, that lead where they may, by way of the environment's proxies.

The standard library takes the end of a connection for the end of the headers. A response that breaks off amid them then
looks like one of another length, or of none.
"""

from __future__ import annotations

import io
import ipaddress
import math
import re
import socket
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from http.client import (
    HTTPException,
    HTTPMessage,
    HTTPResponse,
    LineTooLong,
    RemoteDisconnected,
    UnknownProtocol,
)
from typing import Any
from urllib.parse import unquote
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import parse_url

from streampipe.errors import ConfigError, SourceError
from streampipe.source.address import Address, is_metadata, only_here

_PLAIN = re.compile(rb"([!-9;-~]+):[ \t]*(.*?)\r?\n", re.DOTALL)
_MOST_LINES, _LONGEST = 100, 65536  # as the standard library has it


class _Patient(io.RawIOBase):
    """What a connection brings. A timeout of a socket begins anew with each byte, and bytes that bring an object no
    further (headers, what stands around chunks, a body nobody wants) could come for ever: they may for ``stall``
    seconds, from the first of them on.
    """

    def __init__(self, raw: Any, stall: float | None) -> None:
        super().__init__()
        self._raw = raw
        self._sock = raw._sock  # as that of the standard library has it
        self._stall = stall
        self._until = math.inf

    def news(self) -> None:
        """What came was wanted."""
        self._until = math.inf

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._until < time.monotonic():
            raise TimeoutError(f"bytes came, but nothing new in {self._stall:g} s")
        count: int | None = self._raw.readinto(buffer)
        if self._until == math.inf and self._stall is not None:
            self._until = time.monotonic() + self._stall
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.news: Callable[[], None] = lambda: None
        if type(getattr(self.fp, "raw", None)) is socket.SocketIO:  # else it is TLS within TLS
            patient = _Patient(self.fp.detach(), sock.gettimeout())
            self.fp, self.news = io.BufferedReader(patient), patient.news

    def begin(self) -> None:
        """Read status and headers. As the standard library does it, but for who parses plain headers: it takes the
        parser for mail, which is a sixth of what a request costs.
        """
        if self.headers is not None:
            return
        version, status, reason = self._read_status()
        while status == HTTPStatus.CONTINUE:
            _lines(self.fp)
            version, status, reason = self._read_status()
        if not version.startswith(("HTTP/1.", "HTTP/0.9")):
            raise UnknownProtocol(version)
        self.code = self.status = status
        self.reason, self.version = reason.strip(), 10 if version in ("HTTP/1.0", "HTTP/0.9") else 11
        self.headers = self.msg = _parsed(_lines(self.fp))
        self.chunked = self.headers.get("Transfer-Encoding", "").lower() == "chunked"
        if self.chunked:  # beside it a length means nothing: who unpacked the body on its way may have left the old one
            del self.headers["Content-Length"]
        self.chunk_left = None
        self.will_close = self._check_close()
        self.length = number(self.headers.get("Content-Length"))
        if status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED) or status < 200 or self._method == "HEAD":
            self.length = 0
        self.will_close = self.will_close or (not self.chunked and self.length is None)
        self.news()


def _lines(file: Any) -> list[bytes]:
    """The lines of headers, to the empty one behind them."""
    lines: list[bytes] = []
    while len(lines) <= _MOST_LINES:
        line = file.readline(_LONGEST + 1)
        if not line:
            raise RemoteDisconnected("the connection ended amid the headers")
        if len(line) > _LONGEST:
            raise LineTooLong("header line")
        lines.append(line)
        if line in (b"\r\n", b"\n"):
            return lines
    raise HTTPException(f"got more than {_MOST_LINES} headers")


def _parsed(lines: Sequence[bytes]) -> HTTPMessage:
    """The headers of all lines that are some. The standard library drops all behind one that is none, such as the
    length; and urllib3 then logs the URL with the signature in it.
    """
    found = HTTPMessage()
    whole: list[bytes] = []
    for line in lines[:-1]:
        if whole and line[:1] in (b" ", b"\t"):  # it goes on with the one before
            whole[-1] += line
        else:
            whole.append(line)
    for line in whole:
        if plain := _PLAIN.fullmatch(line):
            found.set_raw(plain[1].decode("latin-1"), plain[2].decode("latin-1"))
    return found


def number(text: str | None) -> int | None:
    """What a header says that is a number of bytes; None if it says something else.

    >>> number("17"), number("-1"), number("\\xb2"), number(None)
    (17, None, None, None)
    """
    return int(text) if text and text.isdecimal() and text.isascii() and len(text) < 20 else None


def basic(user: str) -> str:
    """The header of a user and password, as the web has it now: in UTF-8.

    >>> basic("me:pw")
    'Basic bWU6cHc='
    """
    return f"Basic {b64encode(user.encode()).decode()}"


def _checked(base: Any, allowed: Sequence[str], link_local: bool) -> Any:
    """A class of connections that are checked as soon as they are there. Of a proxy's, it is the proxy who connects."""

    class Checked(base):  # type: ignore[misc]
        def response_class(self, *args: Any, **options: Any) -> _Response:
            self.received = _Response(*args, **options)
            return self.received

        def getresponse(self) -> Any:
            response = super().getresponse()
            response.received = self.received  # so that a body can be read into memory of ours
            return response

        def connect(self) -> None:
            super().connect()
            ip = "" if self.proxy is not None else str(self.sock.getpeername()[0])
            if ip and self.host.strip("[]") not in allowed and is_metadata(ip, link_local):
                self.close()
                raise SourceError(f"the connection to {self.host} leads to {ip}, {only_here(self.host)}")

    Checked.__name__ = base.__name__  # errors show it
    return Checked


@lru_cache(64)
def _classes(allowed: tuple[str, ...], link_local: bool) -> dict[str, Any]:
    """By scheme, pools of such connections."""
    http, https = (_checked(each, allowed, link_local) for each in (HTTPConnection, HTTPSConnection))
    return {
        "http": type("_Pool", (urllib3.HTTPConnectionPool,), {"ConnectionCls": http}),
        "https": type("_SecurePool", (urllib3.HTTPSConnectionPool,), {"ConnectionCls": https}),
    }


def pools(proxy: str | None, allowed: tuple[str, ...], link_local: bool, **settings: Any) -> urllib3.PoolManager:
    """Pools of such connections, by way of a proxy if there is one.

    Args:
        allowed: hosts that may lead anywhere.
        link_local: whether others must not lead to any link-local address; else to no metadata service.
    """
    made: urllib3.PoolManager
    if proxy is None:
        made = urllib3.PoolManager(**settings)
    else:
        parsed = parse_url(proxy)
        user = None if parsed.auth is None else unquote(parsed.auth)
        headers = {"Proxy-Authorization": basic(user)} if user else None
        made = urllib3.ProxyManager(parsed._replace(auth=None).url, proxy_headers=headers, **settings)
    made.pool_classes_by_scheme = _classes(allowed, link_local)
    return made


def proxy_of(at: Address) -> str | None:
    """The proxy of the environment for a URL (``http_proxy``, ``https_proxy``, ``all_proxy``, ``no_proxy``).

    Raises:
        ConfigError: it is none that HTTP can be spoken to.
    """
    found = getproxies()
    proxy = found.get(at.scheme) or found.get("all")
    if not proxy or proxy_bypass(f"{at.host}:{at.port}") or proxy_bypass(at.host) or _is_left_out(at, found):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    try:
        scheme = parse_url(proxy).scheme
    except urllib3.exceptions.HTTPError:
        scheme = None
    if scheme not in ("http", "https"):
        raise ConfigError(
            f"the proxy of the environment ({at.scheme}_proxy or all_proxy) is of scheme {scheme}, which is not read; "
            "give one of scheme http, or leave this host out by no_proxy"
        )
    return proxy


def _is_left_out(at: Address, found: Mapping[str, str]) -> bool:
    """Whether ``no_proxy`` names a host in a form that the standard library does not know: by a network (10.0.0.0/8),
    as *.domain, as an IPv6 address in brackets.
    """
    try:
        ip = ipaddress.ip_address(at.host)
    except ValueError:
        ip = None
    for each in map(str.strip, found.get("no", "").lower().split(",")):
        if each in (f"[{at.host}]", f"[{at.host}]:{at.port}") or (each[:2] == "*." and at.host.endswith(each[1:])):
            return True
        try:
            if ip is not None and "/" in each and ip in ipaddress.ip_network(each, strict=False):
                return True
        except ValueError:
            continue
    return False
