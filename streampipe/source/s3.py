"""S3 and what speaks like it: botocore finds credentials and endpoints, our HTTP path reads.

A signature (0.2 ms) is for any range of an object, and good for a minute here, of the fifteen that a store allows. Only
what no condition can change is left to botocore's client: which host and path an object has, by endpoint, region and
addressing style.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

import urllib3

from streampipe.errors import ConfigError
from streampipe.printable import printable
from streampipe.source.address import Address, address
from streampipe.source.failures import Expired, HttpError
from streampipe.source.http import HttpStore, Request
from streampipe.source.location import redact
from streampipe.source.network import Network
from streampipe.source.web import etag

_TAKEN = (
    "anon", "endpoint_url", "key", "secret", "token", "username", "password", "profile", "use_ssl", "requester_pays",
    "client_kwargs", "config_kwargs",
)  # fmt: skip
_OF_WRITING = (  # s3fs's own, which mean nothing for reading by ranges
    "default_block_size", "default_fill_cache", "default_cache_type", "max_concurrency", "fixed_upload_size",
    "use_listings_cache", "listings_expiry_time", "skip_instance_cache", "cache_regions", "version_aware",
    "s3_additional_kwargs",
)  # fmt: skip
_EXPIRED = ("ExpiredToken", "TokenRefreshRequired", "ExpiredTokenException", "RequestExpired")
_BUSY = ("SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "RequestLimitExceeded", "Throttling")
_DENIED = ("InvalidToken", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed")
_PLACES = 4096
_SIGNED = 60.0  # seconds for which a signature is used again
_METADATA_TRIES = 3


class _Object(NamedTuple):
    bucket: str
    key: str
    version: str | None


class S3:
    """URLs of s3. ``options`` are s3fs's: see ``docs/sources.md``."""

    heads = False  # an error of HEAD has no body, so it does not say that a token ran out

    def __init__(self, options: Mapping[str, Any], network: Network) -> None:
        unknown = set(options) - {*_TAKEN, *_OF_WRITING}
        if unknown:
            raise ConfigError(
                f"storage_options for s3 take {', '.join(_TAKEN)}, not {', '.join(sorted(unknown))}; "
                "network=sp.Network(stores={'s3': 'fsspec'}) reads by s3fs, which may take it"
            )
        self._options = dict(options)
        self._client_options = dict(options.get("client_kwargs") or {})
        self._config = dict(options.get("config_kwargs") or {})
        self.settings = self._of_connections(network)
        self._lock = threading.Lock()
        self._session: Any = None
        self._clients: dict[str | None, Any] = {}  # by region
        self._regions: dict[str, str] = {}  # of buckets that are not where they were asked for
        self._places: dict[str, tuple[Address, str]] = {}  # of objects, with the region
        self._requests: dict[tuple[str, str], tuple[Request, float]] = {}  # that were signed, and until when they do

    def _of_connections(self, network: Network) -> dict[str, Any]:
        found: dict[str, Any] = {}
        connect, read = self._config.get("connect_timeout"), self._config.get("read_timeout")
        if connect or read:
            found["timeout"] = urllib3.Timeout(connect=connect or network.connect, read=read or network.stall)
        if most := self._config.get("max_pool_connections"):
            found["maxsize"] = most
        verify = self._client_options.get("verify")
        if isinstance(verify, str):
            found["ca_certs"] = verify
        elif verify is False:
            found["cert_reqs"] = "CERT_NONE"
        return found

    def request(self, url: str, method: str) -> Request:
        """The signed request for an object."""
        found, until = self._requests.get((url, method), (None, 0.0))
        if found is None or time.monotonic() > until:
            at, region = self._place(url)
            extra = {"x-amz-request-payer": "requester"} if self._options.get("requester_pays") else {}
            found = Request(at, extra if self._anonymous else self._signed(method, at.url, region, extra))
            self._requests[url, method] = found, time.monotonic() + _SIGNED
            while len(self._requests) > _PLACES:
                self._requests.pop(next(iter(self._requests)), None)
        return found

    @property
    def _anonymous(self) -> bool:
        from botocore import UNSIGNED

        return bool(self._options.get("anon")) or self._config.get("signature_version") is UNSIGNED

    def _signed(self, method: str, url: str, region: str, extra: Mapping[str, str]) -> dict[str, str]:
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.exceptions import NoCredentialsError

        credentials = self._of_session().get_credentials()
        if credentials is None:
            raise NoCredentialsError()
        request = AWSRequest(method=method, url=url, headers=dict(extra))
        S3SigV4Auth(credentials.get_frozen_credentials(), "s3", region).add_auth(request)
        return dict(request.headers.items())

    def _of_session(self) -> Any:
        """The session with its credentials, which botocore renews where it can."""
        import botocore.session

        with self._lock:
            if self._session is None:
                session = botocore.session.Session(profile=self._options.get("profile"))
                if int(session.get_config_variable("metadata_service_num_attempts") or 1) == 1:
                    session.set_config_variable("metadata_service_num_attempts", _METADATA_TRIES)
                key = self._option("key", "username", "aws_access_key_id")
                secret = self._option("secret", "password", "aws_secret_access_key")
                if key and secret:
                    session.set_credentials(key, secret, self._option("token", "aws_session_token"))
                self._session = session
            return self._session

    def _option(self, *names: str) -> Any:
        return next(
            (found for name in names if (found := self._options.get(name) or self._client_options.get(name))), None
        )

    def _place(self, url: str) -> tuple[Address, str]:
        found = self._places.get(url)
        if found is None:
            wanted = _parsed(url)
            client = self._client(self._regions.get(wanted.bucket))
            params = {"Bucket": wanted.bucket, "Key": wanted.key}
            if wanted.version:
                params["VersionId"] = wanted.version
            text = client.generate_presigned_url("get_object", Params=params)  # unsigned: just the place
            found = self._places[url] = address(text), client.meta.region_name
            while len(self._places) > _PLACES:
                self._places.pop(next(iter(self._places)), None)
        return found

    def _client(self, region: str | None) -> Any:
        """A client that signs nothing and connects to nothing."""
        from botocore import UNSIGNED
        from botocore.config import Config

        session = self._of_session()
        with self._lock:
            if region not in self._clients:
                config = Config(**{**self._config, "signature_version": UNSIGNED})
                own = {
                    name: value
                    for name, value in self._client_options.items()
                    if name not in ("verify", "aws_access_key_id", "aws_secret_access_key", "aws_session_token")
                }
                own.setdefault("endpoint_url", self._options.get("endpoint_url"))
                own.setdefault("use_ssl", self._options.get("use_ssl", True))
                own["region_name"] = region or own.get("region_name") or session.get_config_variable("region")
                own["region_name"] = own["region_name"] or "us-east-1"
                self._clients[region] = session.create_client("s3", config=config, **own)
            return self._clients[region]

    def credentials(self, url: str) -> str:
        """Which of the storage_options say who asks."""
        if self._options.get("anon"):
            return "without credentials (anon of storage_options)"
        used = next((name for name in ("key", "username", "profile") if self._options.get(name)), None)
        return f"with {used} of storage_options" if used else "with what the environment and configuration files give"

    def renew(self) -> None:
        """Look for credentials anew, in files, environment and metadata service."""
        with self._lock:
            self._session = None
            self._requests = {}

    def version(self, headers: Mapping[str, str]) -> str | None:
        """The ETag."""
        return etag(headers)

    def refusal(self, url: str, error: HttpError) -> Exception:
        """S3 says what it means in the body, under statuses of its own."""
        code = _within(error.body, "Code")
        if not code and error.status not in (301, 307, 400):
            return error
        error = error.saying(f"{code}: {printable(_within(error.body, 'Message'), 120)}" if code else "")
        region = error.headers.get("X-Amz-Bucket-Region") or _within(error.body, "Region")
        bucket = _parsed(url).bucket
        if error.status in (301, 307, 400) and region and region != self._regions.get(bucket, self._place(url)[1]):
            self._regions[bucket] = region
            self._places.clear()
            self._requests = {}
            return OSError(f"the bucket {bucket} is in the region {region}: it is asked for there")
        if code in _EXPIRED:
            return Expired(error)
        return error.as_status(503 if code in _BUSY else 403 if code in _DENIED else error.status)


def _parsed(url: str) -> _Object:
    bucket, _, key = url.partition("://")[2].partition("/")
    key, _, version = key.partition("?versionId=")
    if not bucket or not key:
        raise IsADirectoryError(f"{redact(url)} names no object")
    if {".", ".."} & set(key.split("/")):
        raise ConfigError(
            f"{redact(url)} has a part '.' or '..', which clients of HTTP take away: it cannot be asked for"
        )
    return _Object(bucket, key, unquote(version) or None)


def _within(body: bytes, tag: str) -> str:
    found = re.search(rb"<%b>([^<]*)</%b>" % (tag.encode(), tag.encode()), body)
    return found[1].decode("utf-8", "replace") if found else ""


def s3(options: Mapping[str, Any], network: Network) -> HttpStore:
    """The store of s3.

    Raises:
        ConfigError: botocore, which comes with the extra ``s3``, is not installed.
    """
    try:
        import botocore  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"s3:// needs a package that is not installed ({error}); pip install 's3fs'") from error
    return HttpStore(S3(options, network), network)
