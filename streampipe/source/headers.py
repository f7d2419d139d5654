"""Connections whose headers are whole, or it is an error.

The standard library takes the end of a connection for the end of the headers. A response that breaks off amid them then
looks like one of another length, or of none.
"""

from __future__ import annotations

from http.client import HTTPResponse, RemoteDisconnected
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection


class _Lines:
    """A file of header lines that remembers the last one."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.last = b""

    def readline(self, limit: int = -1) -> bytes:
        self.last = self.file.readline(limit)
        return self.last

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        self.file.close()


class _Response(HTTPResponse):
    def begin(self) -> None:
        file: Any = self.fp
        lines: Any = _Lines(file)
        self.fp = lines
        try:
            super().begin()
        finally:
            if self.fp is lines:
                self.fp = file
        if not lines.last:
            raise RemoteDisconnected("the connection ended amid the headers")


class _Connection(HTTPConnection):
    response_class = _Response


class _SecureConnection(HTTPSConnection):
    response_class = _Response


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


def pools(proxy: str | None, **settings: Any) -> urllib3.PoolManager:
    """Pools of such connections, by way of a proxy if there is one."""
    made = urllib3.ProxyManager(proxy, **settings) if proxy else urllib3.PoolManager(**settings)
    made.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return made
