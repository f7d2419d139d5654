"""S3 as s3fs speaks it, with moto's server, also behind a proxy that breaks connections."""

import itertools
import logging

import pytest

import streampipe as sp
from streampipe.source import Network, Source
from streampipe.testing import Bandwidth, ChaosProxy, LimitData, ResetPeer, Timeout
from tests.source.conftest import DATA, bounded, whole

moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
boto3 = pytest.importorskip("boto3")

NETWORK = Network(tries=6, stall=3, first_wait=0.01, longest_wait=0.1, window=128 << 10, requests=4)
KEYS = {"key": "testing", "secret": "hidden"}
_names = itertools.count()


@pytest.fixture(scope="module")
def s3():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3", endpoint_url=f"http://{host}:{port}", aws_access_key_id="testing", aws_secret_access_key="hidden",
        region_name="us-east-1",
    )  # fmt: skip
    client.create_bucket(Bucket="bucket")
    yield client, port
    client.close()
    server.stop()


@pytest.fixture
def name(s3):
    name = f"{next(_names)}.tar"
    s3[0].put_object(Bucket="bucket", Key=name, Body=DATA)
    return name


def source_at(port, **options):
    return Source({**KEYS, "endpoint_url": f"http://127.0.0.1:{port}", **options}, network=NETWORK)


def test_an_object_comes_whole_in_ranges_and_parts(s3, name):
    source = source_at(s3[1])
    assert bounded(whole, source, f"s3://bucket/{name}") == DATA
    assert source.read(f"s3://bucket/{name}", 10, 300_000) == DATA[10:300_000]
    assert source.size(f"s3://bucket/{name}") == len(DATA)
    s3[0].put_object(Bucket="bucket", Key="empty.tar", Body=b"")
    assert whole(source, "s3://bucket/empty.tar") == b""


def test_writing_globbing_and_missing_objects(s3):
    source = source_at(s3[1])
    source.write("s3://bucket/w/1.tar", b"one")
    source.write("s3://bucket/w/2.tar", b"two")
    assert source.glob("s3://bucket/w/*.tar") == ["s3://bucket/w/1.tar", "s3://bucket/w/2.tar"]
    assert source.is_directory("s3://bucket/w")
    assert source.read_if_there("s3://bucket/w/3.tar") is None
    with pytest.raises(sp.ShardMissing, match="s3://bucket/w/3.tar does not exist"):
        bounded(whole, source, "s3://bucket/w/3.tar")
    with pytest.raises(sp.ShardMissing):
        bounded(whole, source, "s3://nobucket/3.tar")
    with pytest.raises(sp.ShardMissing):
        bounded(whole, source, "s3://bucket/w")


@pytest.mark.parametrize("toxic", [ResetPeer, LimitData])
def test_broken_connections_are_resumed(s3, name, toxic):
    with ChaosProxy(s3[1]) as proxy:
        proxy.next(toxic(0), None, toxic(50_000), toxic(1), None, toxic(100_000), toxic(200), None)
        assert bounded(whole, source_at(proxy.port), f"s3://bucket/{name}") == DATA


def test_bytes_that_came_before_a_break_are_kept(s3, name):
    """No connection carries a window; each carries a part of one."""
    with ChaosProxy(s3[1]) as proxy:
        source = source_at(proxy.port)
        source.size(f"s3://bucket/{name}")
        proxy.always = ResetPeer(40_000)
        assert bounded(whole, source, f"s3://bucket/{name}") == DATA
        assert proxy.connections < 60


def test_a_stall_is_found(s3, name):
    with ChaosProxy(s3[1]) as proxy:
        source = Source(
            {**KEYS, "endpoint_url": f"http://127.0.0.1:{proxy.port}"}, network=Network(stall=0.5, first_wait=0)
        )
        proxy.next(None, Timeout(50_000), Timeout(0))
        assert bounded(whole, source, f"s3://bucket/{name}") == DATA


def test_a_slow_link_is_no_stall(s3, name):
    with ChaosProxy(s3[1]) as proxy:
        proxy.always = Bandwidth(230_000)
        source = Source(
            {**KEYS, "endpoint_url": f"http://127.0.0.1:{proxy.port}"},
            network=Network(stall=2, tries=1, window=1 << 20, requests=1),
        )
        assert bounded(whole, source, f"s3://bucket/{name}") == DATA


def test_a_server_that_never_comes_is_unavailable_after_our_tries_alone(s3, name):
    with ChaosProxy(s3[1]) as proxy:
        proxy.always = ResetPeer(0)
        with pytest.raises(sp.SourceUnavailable, match=r"s3://bucket/.*6 tries at byte 0") as error:
            bounded(whole, source_at(proxy.port), f"s3://bucket/{name}")
        assert "hidden" not in str(error.value)
        assert proxy.connections <= 12  # neither botocore nor s3fs multiplies them


def test_an_object_replaced_while_it_is_read_is_never_mixed(s3, name):
    source = source_at(s3[1])
    source.network = Network(window=128 << 10, memory=1)  # no more ahead than the next window
    chunks = source.chunks(f"s3://bucket/{name}")
    got = [next(chunks)]
    s3[0].put_object(Bucket="bucket", Key=name, Body=DATA[::-1])
    with pytest.raises(sp.ShardChanged, match="was replaced while it was read"):
        for chunk in chunks:
            got.append(chunk)
    assert DATA.startswith(b"".join(got))
    assert bounded(whole, source, f"s3://bucket/{name}") == DATA[::-1]


def test_without_credentials_access_is_denied_and_the_kind_is_named(s3, name, monkeypatch, tmp_path):
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    source = Source({"endpoint_url": f"http://127.0.0.1:{s3[1]}"}, network=NETWORK)
    with pytest.raises(sp.AccessDenied, match="with what the environment and configuration files give"):
        bounded(whole, source, f"s3://bucket/{name}")


def test_a_users_own_settings_of_the_backend_stand():
    source = Source({**KEYS, "config_kwargs": {"read_timeout": 77}}, network=NETWORK)
    fs = source._fsspec("s3://bucket/a").filesystem("s3://bucket/a")
    assert fs.config_kwargs["read_timeout"] == 77
    assert fs.config_kwargs["connect_timeout"] == NETWORK.connect


def test_shards_on_s3_are_cached(s3, name, tmp_path):
    cache = sp.Cache(tmp_path / "kept")
    for _ in range(2):
        source = Source({**KEYS, "endpoint_url": f"http://127.0.0.1:{s3[1]}"}, network=NETWORK, cache=cache)
        view = source.buffer(f"s3://bucket/{name}")
        assert (bytes(view) if view is not None else bounded(whole, source, f"s3://bucket/{name}")) == DATA
    assert view is not None
