"""Connections that lead where they may, by way of the environment's proxies."""

from __future__ import annotations

import ipaddress
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import unquote
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import parse_url

from streampipe.errors import ConfigError, SourceError
from streampipe.source.address import Address, is_metadata, only_here


def basic(user: str) -> str:
    """The header of a user and password, as the web has it now: in UTF-8.

    >>> basic("me:pw")
    'Basic bWU6cHc='
    """
    return f"Basic {b64encode(user.encode()).decode()}"


def _checked(base: Any, allowed: Sequence[str], link_local: bool) -> Any:
    """A class of connections that are checked as soon as they are there. Of a proxy's, it is the proxy who connects."""

    class Checked(base):  # type: ignore[misc]
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
