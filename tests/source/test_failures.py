"""Every error of a backend becomes one of ours, and it is known whether to try again."""

import asyncio
import errno
import socket
import ssl

import aiohttp
import botocore.exceptions
import pytest
import urllib3
from aiohttp.http_exceptions import ContentLengthError, TransferEncodingError
from fsspec.exceptions import FSTimeoutError
from s3fs.errors import translate_boto_error
from s3fs.utils import FileExpired

import streampipe as sp
from streampipe.source.failures import Ended, HttpError, cause, failure
from streampipe.source.location import redact

URL = "https://me:hidden@host/a.tar?sig=hidden"


def caused(error, by):
    error.__cause__ = by
    return error


def client_error(code, status, **headers):
    response = {"Error": {"Code": code, "Message": code}}
    response["ResponseMetadata"] = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    return botocore.exceptions.ClientError(response, "GetObject")


def aiohttp_status(status):
    info = aiohttp.RequestInfo("https://h/a?sig=hidden", "GET", {}, "https://h/a?sig=hidden")
    return aiohttp.ClientResponseError(info, (), status=status, message="no")


class GcsError(Exception):
    """As gcsfs.retry.HttpError: the status as text."""

    code = "503"


class AzureError(Exception):
    """As azure.core.exceptions.HttpResponseError."""

    status_code = 404


# what may help when it is tried again
AGAIN = [
    aiohttp.ClientPayloadError("Response payload is not completed"),
    caused(aiohttp.ClientPayloadError("incomplete"), ContentLengthError("Not enough data")),  # has a "code" of 400
    caused(aiohttp.ClientPayloadError("incomplete"), TransferEncodingError("Not enough data")),
    aiohttp.ServerDisconnectedError(),
    aiohttp.ClientOSError(errno.ECONNRESET, "reset"),
    aiohttp.SocketTimeoutError(),
    aiohttp_status(503),
    aiohttp_status(429),
    FSTimeoutError(),
    asyncio.TimeoutError(),
    TimeoutError(),
    botocore.exceptions.ReadTimeoutError(endpoint_url="https://s3"),
    botocore.exceptions.ConnectTimeoutError(endpoint_url="https://s3"),
    botocore.exceptions.EndpointConnectionError(endpoint_url="https://s3"),
    botocore.exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2),
    botocore.exceptions.ConnectionClosedError(endpoint_url="https://s3"),
    translate_boto_error(client_error("SlowDown", 503)),
    translate_boto_error(client_error("InternalError", 500)),
    translate_boto_error(client_error("RequestTimeout", 400)),
    urllib3.exceptions.ReadTimeoutError(None, "/", "timed out"),
    urllib3.exceptions.ProtocolError("Connection broken", ConnectionResetError()),
    urllib3.exceptions.NewConnectionError(None, "refused"),
    urllib3.exceptions.IncompleteRead(1, 2),
    socket.gaierror(-2, "Name or service not known"),
    ConnectionResetError(errno.ECONNRESET, "reset"),
    BrokenPipeError(),
    EOFError(),
    IndexError("tuple index out of range"),  # s3fs, after tries that stalled
    RuntimeError("whatever"),
    GcsError(),
    HttpError(500, "oops"),
    HttpError(429, "slow"),
    Ended("1 of 2 bytes came"),
    caused(FileNotFoundError("a.tar"), aiohttp_status(503)),  # fsspec's open: a busy server is no missing file
]

# what is final, and what it is
FINAL = [
    (FileNotFoundError("a.tar"), sp.ShardMissing),
    (IsADirectoryError("a.tar"), sp.ShardMissing),
    (HttpError(404, "Not Found"), sp.ShardMissing),
    (HttpError(410, "Gone"), sp.ShardMissing),
    (aiohttp_status(404), sp.ShardMissing),
    (AzureError(), sp.ShardMissing),
    (translate_boto_error(client_error("NoSuchKey", 404)), sp.ShardMissing),
    (translate_boto_error(client_error("NoSuchBucket", 404)), sp.ShardMissing),
    (PermissionError("no"), sp.AccessDenied),
    (HttpError(401, "Unauthorized"), sp.AccessDenied),
    (HttpError(403, "Forbidden"), sp.AccessDenied),
    (translate_boto_error(client_error("AccessDenied", 403)), sp.AccessDenied),
    (translate_boto_error(client_error("ExpiredToken", 400)), sp.AccessDenied),
    (botocore.exceptions.NoCredentialsError(), sp.AccessDenied),
    (botocore.exceptions.PartialCredentialsError(provider="env", cred_var="key"), sp.AccessDenied),
    (HttpError(412, "Precondition Failed"), sp.ShardChanged),
    (FileExpired("a.tar", e_tag="x"), sp.ShardChanged),
    (translate_boto_error(client_error("PreconditionFailed", 412)), sp.ShardChanged),
    (HttpError(400, "Bad Request"), sp.SourceError),
    (HttpError(305, "Use Proxy"), sp.SourceError),
    (OSError(errno.ENOSPC, "full"), sp.SourceError),
    (OSError(errno.EMFILE, "too many"), sp.SourceError),
    (caused(urllib3.exceptions.SSLError("no"), ssl.SSLCertVerificationError("self-signed")), sp.SourceError),
    (aiohttp.InvalidURL("x"), sp.ConfigError),
    (ValueError("bad"), sp.ConfigError),
    (TypeError("unexpected keyword argument 'toke'"), sp.ConfigError),
    (ImportError("gcsfs"), sp.ConfigError),
    (NotImplementedError(), sp.ConfigError),
]


def named(case):
    error = case[0] if isinstance(case, tuple) else case
    return f"{type(error).__module__.partition('.')[0]}-{type(error).__name__}-{str(error)[:24]}".replace(" ", "_")


@pytest.mark.parametrize("error", AGAIN, ids=map(named, AGAIN))
def test_what_may_pass_is_tried_again(error):
    found = failure(error, URL)
    assert found.again
    assert type(found.error) is sp.SourceError
    assert "hidden" not in str(found.error)
    assert redact(URL) in str(found.error)


@pytest.mark.parametrize(("error", "kind"), FINAL, ids=map(named, FINAL))
def test_what_is_final_is_raised_at_once(error, kind):
    found = failure(error, URL)
    assert not found.again
    assert type(found.error) is kind
    assert "hidden" not in str(found.error)
    assert redact(URL) in str(found.error)


def test_our_own_errors_stay_what_they_are():
    error = sp.CorruptShard("a.tar: bad")
    assert failure(error, URL) == (error, False, 0.0)


def test_the_wait_that_a_server_asks_for_is_found_in_every_spelling():
    assert failure(HttpError(503, "", {"Retry-After": "7"}), URL).wait == 7
    assert failure(translate_boto_error(client_error("SlowDown", 503, **{"retry-after": "7"})), URL).wait == 7
    assert failure(HttpError(503, "", {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}), URL).wait == 0
    assert failure(HttpError(503, "", {"Retry-After": "Wed, 21 Oct 2150 07:28:00 GMT"}), URL).wait > 1e9
    assert failure(HttpError(503, "", {"Retry-After": "-3"}), URL).wait == 0


def test_a_cause_whose_text_holds_a_secret_is_not_chained():
    assert cause(OSError("plain"), URL) is not None
    assert cause(OSError("GET https://elsewhere/b?sig=other"), URL) is None
    assert cause(caused(OSError("plain"), OSError("https://elsewhere/b?sig=other")), URL) is None


def test_the_meaning_is_not_read_off_an_error_that_was_handled_before():
    try:
        try:
            raise FileNotFoundError("cache miss")
        except FileNotFoundError:
            raise ConnectionResetError("reset") from None
    except ConnectionResetError as error:
        assert failure(error, URL).again


def test_the_credentials_in_use_are_named():
    said = str(failure(PermissionError("no"), URL, "written", "with key of storage_options").error)
    assert said.startswith("https://host/a.tar may not be written")
    assert "asked for with key of storage_options" in said


@pytest.mark.parametrize(
    ("url", "hinted"), [("s3://b/data", True), ("s3://b/data/0.tar", False), ("data/0.tar", False)]
)
def test_a_remote_folder_that_is_named_as_a_file_is_told_how_folders_are_written(url, hinted):
    found = failure(FileNotFoundError("none"), url).error
    assert ("end it in a / if it is a folder" in str(found)) is hinted
