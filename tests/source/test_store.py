"""The protocol of a store and its registry; all built-in stores pass the test that a third party's must pass."""

import io
import sys

import fsspec
import pytest

import streampipe as sp
from streampipe.source import Network, Source
from streampipe.source.store import factory_of
from streampipe.source.stores import BUILT_IN, OpenerStore
from streampipe.testing import BrokenOpener, FaultServer, check_store
from tests.source.conftest import DATA, QUICK, Scripted, ranged, whole
from tests.source.test_gcs import Bucket
from tests.source.test_hub import Repository
from tests.source.test_s3 import KEYS, name, s3  # noqa: F401 - fixtures


class Shelf(sp.Store):
    """A store of a third party: everything that a store must have, and nothing more."""

    objects = {}  # noqa: RUF012

    def __init__(self, options, network):
        self.options = options

    def pin(self, url):
        data, version = self._found(url)
        return sp.Pin(len(data), version)

    def get(self, url, start, end, pin):
        data, version = self._found(url)
        found = sp.Pin(len(data), version)
        if pin.differs(found):
            raise sp.ShardChanged(f"{url} changed")
        return sp.Answer(start, found, iter([data[start:end]]))

    def _found(self, url):
        if url not in self.objects:
            raise FileNotFoundError(url)
        return self.objects[url]


@pytest.fixture
def shelf(monkeypatch):
    monkeypatch.setattr(Shelf, "objects", {"shelf://a.tar": (DATA, "1"), "s3://b/a.tar": (DATA[::-1], "1")})
    monkeypatch.setattr("streampipe.source.store._REGISTERED", {})
    return Shelf


def test_a_store_of_a_third_party_passes(shelf):
    check_store(
        lambda: shelf({}, QUICK),
        "shelf://a.tar",
        DATA,
        missing="shelf://none",
        replace=lambda data: shelf.objects.update({"shelf://a.tar": (data, "2")}),
    )


def test_a_registered_store_reads_its_scheme_and_any_other_that_is_given_to_it(shelf):
    sp.register_store("shelf", shelf)
    assert whole(Source(network=QUICK), "shelf://a.tar") == DATA
    assert Source(network=QUICK).read("shelf://a.tar", 5, 9) == DATA[5:9]
    network = Network(stores={"s3": "shelf"}, tries=2, first_wait=0)
    assert whole(Source(network=network), "s3://b/a.tar") == DATA[::-1]
    with pytest.raises(sp.ShardMissing, match="shelf://none does not exist"):
        whole(Source(network=QUICK), "shelf://none")


def test_a_scheme_that_nobody_registered_is_refused(shelf):
    with pytest.raises(sp.ConfigError, match="of scheme 'shelf' are not read unless you allow them"):
        whole(Source(network=QUICK), "shelf://a.tar")
    with pytest.raises(sp.ConfigError, match=r"reads s3:// by 'shelf', which is no store here.*sp\.register_store"):
        Source(network=Network(stores={"s3": "shelf"})).read("s3://b/a.tar")
    for wrong in ("Shelf", "a b", "", "a://"):
        with pytest.raises(sp.ConfigError, match="a store is registered for a scheme"):
            sp.register_store(wrong, shelf)


def test_an_entry_point_is_a_store_once_its_scheme_is_allowed(shelf, monkeypatch, tmp_path):
    (tmp_path / "shelf_store.py").write_text("from tests.source.test_store import Shelf\n")
    info = tmp_path / "shelf_store-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf-store\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[streampipe.stores]\nshelf = shelf_store:Shelf\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("shelf_store", None)
    with pytest.raises(sp.ConfigError, match="are not read unless you allow them"):
        Source(network=QUICK).read("shelf://a.tar")
    assert factory_of("shelf", Network())[0] == "shelf"
    assert Source(network=Network(schemes=("shelf",))).read("shelf://a.tar", 5, 9) == DATA[5:9]


def test_which_store_reads_a_scheme_is_told_by_pairs_that_can_be_a_key():
    assert Network(stores={"s3": "obstore", "gs": "fsspec"}) == Network(stores=(("gs", "fsspec"), ("s3", "obstore")))
    assert hash(Network(stores={"s3": "obstore"}))
    for wrong in ("s3", {"s3"}, 5, [1]):
        with pytest.raises(sp.ConfigError, match="which store reads a scheme|says by scheme"):
            Network(stores=wrong)


# The built-in ones


def test_the_web_passes():
    with FaultServer({"a.tar": DATA}) as server:
        check_store(
            lambda: BUILT_IN["http"]({}, QUICK),
            server.url("a.tar"),
            DATA,
            missing=server.url("none"),
            replace=lambda data: server.put("a.tar", data),
        )


PATIENT = Network(tries=4, stall=30, first_wait=0.01, window=128 << 10)


@pytest.mark.parametrize("store", ["s3", "obstore", "fsspec"])
def test_s3_passes(s3, name, store):  # noqa: F811
    if store == "obstore":
        pytest.importorskip("obstore", reason="obstore is not installed")
    options = {**KEYS, "endpoint_url": f"http://127.0.0.1:{s3[1]}"}
    if store == "obstore":
        options["region"] = "us-east-1"
    check_store(
        lambda: BUILT_IN[store](options, PATIENT),
        f"s3://bucket/{name}",
        DATA,
        missing="s3://bucket/none",
        replace=lambda data: s3[0].put_object(Bucket="bucket", Key=name, Body=data),
        folder=f"s3://bucket/checked-{name}" if store == "fsspec" else None,
    )


def test_google_passes():
    pytest.importorskip("gcsfs", reason="gcsfs is not installed")
    bucket = Bucket()
    with Scripted(bucket) as server:
        check_store(
            lambda: BUILT_IN["gs"]({"endpoint_url": server.at, "token": "anon"}, QUICK),
            "gs://bucket/d/a b.tar",
            DATA,
            missing="gs://bucket/none",
            replace=lambda data: bucket.objects.update({"d/a b.tar": (data, 2)}),
        )


def test_the_hub_passes():
    with Scripted(Repository()) as server:
        check_store(
            lambda: BUILT_IN["hf"]({"endpoint": server.at, "token": False}, QUICK),
            "hf://datasets/o/d/data/a.tar",
            DATA,
            missing="hf://datasets/o/d/none",
        )


def test_fsspec_passes():
    fs = fsspec.filesystem("memory")
    fs.pipe("/checked/a.tar", DATA)
    try:
        check_store(
            lambda: BUILT_IN["fsspec"]({}, QUICK),
            "memory://checked/a.tar",
            DATA,
            missing="memory://checked/none",
            replace=lambda data: fs.pipe("/checked/a.tar", data),
            folder="memory://checked/folder",
        )
    finally:
        fs.rm("/checked", recursive=True)


def test_an_opener_passes():
    check_store(lambda: OpenerStore(BrokenOpener({"x": DATA})), "x", DATA, missing="y")
    check_store(lambda: OpenerStore(lambda url: io.BytesIO(DATA)), "x", DATA)


def test_obstore_says_what_is_wrong(s3, name):  # noqa: F811
    pytest.importorskip("obstore", reason="obstore is not installed")
    network = Network(stores={"s3": "obstore"}, tries=2, first_wait=0, window=128 << 10)
    options = {**KEYS, "endpoint_url": f"http://127.0.0.1:{s3[1]}", "region": "us-east-1"}
    assert whole(Source(options, network=network), f"s3://bucket/{name}") == DATA
    with pytest.raises(sp.ShardMissing):
        Source(options, network=network).read("s3://bucket/none")
    with pytest.raises(sp.ConfigError, match="storage_options="):
        Source({**options, "nonsense": "1"}, network=network).read(f"s3://bucket/{name}")
    with Scripted(lambda *asked: (403, {}, b"<Error><Code>AccessDenied</Code></Error>")) as server:
        with pytest.raises(sp.AccessDenied, match="with the keys of storage_options") as caught:
            Source({**options, "endpoint_url": server.at}, network=network).read("s3://bucket/x")
        assert "hidden" not in str(caught.value)
    with pytest.raises(sp.ConfigError, match="has an empty part"):
        Source(options, network=network).read(f"s3://bucket//{name}")
    s3[0].put_object(Bucket="bucket", Key="nothing.tar", Body=b"")
    assert whole(Source(options, network=network), "s3://bucket/nothing.tar") == b""


def test_obstore_finds_a_store_that_mixes_versions():
    pytest.importorskip("obstore", reason="obstore is not installed")
    tags = iter(['"1"', '"1"'])
    date = {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
    network = Network(stores={"s3": "obstore"}, tries=2, first_wait=0, window=128 << 10)
    with Scripted(lambda method, path, sent: ranged(DATA, sent, ETag=next(tags, '"2"'), **date)) as server:
        source = Source({**KEYS, "endpoint_url": server.at, "region": "us-east-1"}, network=network)
        with pytest.raises(sp.ShardChanged):
            whole(source, "s3://bucket/x")
