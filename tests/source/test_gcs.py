"""gs:// as Google's JSON API speaks it, by a stand-in: one request a window, pinned by generation."""

import json
from urllib.parse import unquote, urlsplit

import pytest

import streampipe as sp
from streampipe.source import Network, Source
from streampipe.source.gcs import Gcs
from tests.source.conftest import DATA, QUICK, Scripted, bounded, ranged, whole

pytest.importorskip("gcsfs", reason="gcsfs is not installed")


class Bucket:
    """Objects with their generations; ``refusal`` answers everything, if it is there."""

    def __init__(self):
        self.objects = {"d/a b.tar": (DATA, 1)}
        self.refusal = None

    def __call__(self, method, path, sent):
        if self.refusal:
            return self.refusal
        at = urlsplit(path)
        assert at.path.startswith("/download/storage/v1/b/bucket/o/")
        assert "alt=media" in at.query
        found = self.objects.get(unquote(at.path.removeprefix("/download/storage/v1/b/bucket/o/")))
        if found is None:
            return 404, {}, b"No such object"
        return ranged(found[0], sent, **{"X-Goog-Generation": str(found[1])})


@pytest.fixture
def bucket():
    return Bucket()


@pytest.fixture
def server(bucket):
    with Scripted(bucket) as server:
        yield server


def source_of(server, **network):
    return Source({"endpoint_url": server.at, "token": "anon"}, network=Network(**{"window": 128 << 10, **network}))


def test_an_object_costs_one_request_a_window_and_nothing_else(server):
    assert bounded(whole, source_of(server), "gs://bucket/d/a b.tar") == DATA
    assert {method for method, _, _ in server.asked} == {"GET"}
    assert len(server.asked) == -(-len(DATA) // (128 << 10))
    with pytest.raises(sp.ShardMissing):
        source_of(server).read("gs://bucket/none.tar")


def test_a_replaced_object_is_found_by_its_generation(server, bucket):
    chunks = source_of(server, memory=1).chunks("gs://bucket/d/a b.tar")
    next(chunks)
    bucket.objects["d/a b.tar"] = (DATA[::-1], 2)
    with pytest.raises(sp.ShardChanged, match="version 1 became 2"):
        bounded(list, chunks)


def test_a_bucket_that_may_not_be_listed_has_no_index_and_its_shards_are_read(server, bucket):
    bucket.refusal = (403, {}, b'{"error": {"errors": [{"reason": "forbidden"}]}}')
    assert source_of(server).read_if_there("gs://bucket/d/a.index.parquet") is None
    with pytest.raises(sp.AccessDenied, match="without credentials"):
        source_of(server).read("gs://bucket/d/a b.tar")
    assert len(server.asked) == 2
    bucket.refusal = None
    assert source_of(server).read("gs://bucket/d/a b.tar", 1, 5) == DATA[1:5]


def test_too_many_requests_are_403_there_and_are_made_again(server, bucket):
    body = json.dumps({"error": {"errors": [{"reason": "userRateLimitExceeded"}]}}).encode()
    answers = iter([(403, {}, body), (429, {}, b""), (503, {}, b"")])
    real = bucket.__call__
    with Scripted(lambda *asked: next(answers, None) or real(*asked)) as busy:
        assert bounded(source_of(busy, first_wait=0).read, "gs://bucket/d/a b.tar", 0, 9) == DATA[:9]


def test_the_request_carries_the_token_generation_and_who_pays():
    class Credentials:
        def apply(self, headers):
            headers["authorization"] = "Bearer t"

    endpoint = Gcs({"endpoint_url": "http://h", "requester_pays": True, "project": "p"})
    endpoint._files = type("Files", (), {"credentials": Credentials()})
    at, headers = endpoint.request("gs://b/x/y#17", "GET")
    assert at.url == "http://h/download/storage/v1/b/b/o/x%2Fy?alt=media&generation=17&userProject=p"
    assert headers == {"authorization": "Bearer t"}
    with pytest.raises(IsADirectoryError):
        endpoint.request("gs://b", "GET")


def test_a_number_sign_may_be_part_of_a_name():
    endpoint = Gcs({"endpoint_url": "http://h", "token": "anon", "requester_pays": "payer"})
    for url, path in (("gs://b/x#1.tar", "x%231.tar?alt=media"), ("gs://b/x#y#5", "x%23y?alt=media&generation=5")):
        at = endpoint.request(url, "GET").at.url
        assert at == f"http://h/download/storage/v1/b/b/o/{path}&userProject=payer"


def test_no_credentials_are_denied_at_once(monkeypatch):
    def missing(self):
        raise type("DefaultCredentialsError", (Exception,), {})("no credentials were found")

    monkeypatch.setattr(Gcs, "_filesystem", missing)
    with pytest.raises(sp.AccessDenied, match="with what the environment"):
        Source(network=QUICK).read("gs://bucket/a.tar")
