"""S3 with moto's server, also behind a proxy that breaks connections, and with stores that do not do as S3 does."""

import itertools
import json
import logging
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streampipe as sp
from streampipe.source import Network, Source
from streampipe.source.s3 import S3
from streampipe.testing import Bandwidth, ChaosProxy, LimitData, ResetPeer, Timeout
from tests.data import photo
from tests.source.conftest import DATA, Scripted, bounded, ranged, until, whole

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


def test_rows_of_parquet_files_are_planned_and_survive_broken_connections(s3, tmp_path):
    rows = [{"image": {"bytes": photo(n, 40, 30), "path": None}, "n": n, "score": n / 10} for n in range(12)]
    for number in range(2):
        table = pa.Table.from_pylist(rows[6 * number : 6 * number + 6])
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=4)
        s3[0].put_object(Bucket="bucket", Key=f"p/{number}.parquet", Body=(tmp_path / "a.parquet").read_bytes())
    with ChaosProxy(s3[1]) as proxy:
        options = {**KEYS, "endpoint_url": f"http://127.0.0.1:{proxy.port}"}
        proxy.next(None, ResetPeer(500), LimitData(700), None, ResetPeer(0), None, LimitData(1), None)
        pipe = sp.stream("s3://bucket/p/*.parquet", shuffle=True, seed=1, storage_options=options, network=NETWORK)
        batches = list(pipe.where("score >= 0.2").select("image", "n").decode(16).batch(2).loader())
    assert sorted(n for batch in batches for n in batch["n"].tolist()) == list(range(2, 12))
    assert all(tuple(batch["image"].shape) == (2, 3, 16, 16) for batch in batches)


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
    for options, wanted in (
        ({"config_kwargs": {"read_timeout": 77}}, (77, NETWORK.connect)),
        ({"config_kwargs": {"connect_timeout": 3}}, (NETWORK.stall, 3)),
    ):
        timeout = S3({**KEYS, **options}, NETWORK).settings["timeout"]
        assert (timeout.read_timeout, timeout.connect_timeout) == wanted
    assert S3({"client_kwargs": {"verify": "/ca.pem"}}, NETWORK).settings == {"ca_certs": "/ca.pem"}


def test_shards_on_s3_are_cached(s3, name, tmp_path):
    cache = sp.Cache(tmp_path / "kept")
    for _ in range(2):
        source = Source({**KEYS, "endpoint_url": f"http://127.0.0.1:{s3[1]}"}, network=NETWORK, cache=cache)
        view = source.file(f"s3://bucket/{name}")
        assert (bytes(view) if view is not None else bounded(whole, source, f"s3://bucket/{name}")) == DATA
    assert view is not None


# Stores that do not do as S3 does


def odd(answer, **options):
    """A source that reads from a store of one function."""
    return Source({**KEYS, "endpoint_url": answer.at, **options}, network=NETWORK)


def test_a_store_that_ignores_ranges_gives_the_right_bytes():
    with Scripted(lambda method, path, sent: (200, {"ETag": '"1"'}, DATA)) as server:
        assert bounded(odd(server).read, "s3://b/x.tar", 1000, 1010) == DATA[1000:1010]
        assert bounded(whole, odd(server), "s3://b/x.tar") == DATA


def test_a_store_that_ignores_conditions_never_mixes_versions():
    tags = iter(['"1"', '"1"'])
    mixes = Scripted(lambda method, path, sent: ranged(DATA, sent, ETag=next(tags, '"2"')))
    with mixes as server, pytest.raises(sp.ShardChanged, match='version "1" became "2"'):
        bounded(whole, odd(server), "s3://b/x.tar")


def expiring(good):
    """A store that knows one key; others have run out, in S3's words (a 400, and nothing but that for a HEAD)."""

    def answer(method, path, sent):
        if f"Credential={good[0]}/" in sent.get("authorization", ""):
            return ranged(DATA, sent, ETag='"1"')
        return 400, {}, b"" if method == "HEAD" else b"<Error><Code>ExpiredToken</Code><Message>no</Message></Error>"

    return answer


@pytest.fixture
def credentials(tmp_path, monkeypatch):
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))

    def write(key):
        text = f"[default]\naws_access_key_id={key}\naws_secret_access_key=hidden\naws_session_token=T\n"
        (tmp_path / "credentials").write_text(text)

    write("KEY1")
    return write


def test_credentials_that_run_out_are_found_anew_whatever_is_asked_for_first(credentials):
    good = ["KEY1"]
    with Scripted(expiring(good)) as server:
        source = Source({"endpoint_url": server.at}, network=NETWORK)
        assert source.read("s3://b/x", 0, 10) == DATA[:10]
        for number, ask in enumerate(
            (
                lambda: source.read("s3://b/x", 10, 20) == DATA[10:20],
                lambda: source.size("s3://b/y") == len(DATA),
                lambda: source.read_if_there("s3://b/z.index.parquet") == DATA,
                lambda: whole(source, "s3://b/w") == DATA,
            ),
            2,
        ):
            good[0] = f"KEY{number}"
            credentials(good[0])
            assert bounded(ask), number


def test_credentials_that_are_renewed_a_little_late_are_waited_for(credentials):
    good = ["KEY1"]
    with Scripted(expiring(good)) as server:
        source = Source({"endpoint_url": server.at}, network=Network(patience=20, first_wait=0.01, longest_wait=0.05))
        source.read("s3://b/x", 0, 10)
        good[0] = "KEY2"
        before = len(server.asked)
        late = threading.Thread(target=lambda: (until(lambda: len(server.asked) > before + 3), credentials("KEY2")))
        late.start()
        assert bounded(source.read, "s3://b/x", 10, 20) == DATA[10:20]
        late.join()


def test_credentials_that_were_never_good_are_denied_at_once(credentials):
    with Scripted(expiring(["KEY9"])) as server:
        with pytest.raises(sp.AccessDenied, match="credentials have run out.*ExpiredToken") as caught:
            bounded(Source({"endpoint_url": server.at}, network=Network()).read, "s3://b/x", 0, 10)
        assert len(server.asked) == 1
    assert "hidden" not in str(caught.value)


def test_a_metadata_service_that_fails_once_is_asked_again(credentials, tmp_path, monkeypatch):
    (tmp_path / "credentials").unlink()
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    answers = iter([(500, {}, b"")])
    role = {"Code": "Success", "AccessKeyId": "KEY1", "SecretAccessKey": "s", "Token": "t"}
    role["Expiration"] = "2150-01-01T00:00:00Z"

    def metadata(method, path, sent):
        if path == "/latest/api/token":
            return 200, {}, b"token"
        if path.endswith("security-credentials/"):
            return next(answers, None) or (200, {}, b"role")
        return 200, {}, json.dumps(role).encode()

    with Scripted(metadata) as service, Scripted(expiring(["KEY1"])) as server:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.at)
        assert bounded(Source({"endpoint_url": server.at}, network=NETWORK).read, "s3://b/x", 0, 10) == DATA[:10]


def test_a_bucket_in_another_region_is_asked_for_there():
    def answer(method, path, sent):
        if "/eu-north-1/s3/" in sent["authorization"]:
            return ranged(DATA, sent)
        return 301, {"X-Amz-Bucket-Region": "eu-north-1"}, b"<Error><Code>PermanentRedirect</Code></Error>"

    with Scripted(answer) as server:
        source = odd(server)
        assert bounded(whole, source, "s3://b/x.tar") == DATA
        assert sum("eu-north-1" not in sent["authorization"] for _, _, sent in server.asked) == 1


def test_what_s3_says_is_in_the_error_and_busy_is_busy():
    answers = iter([b"SlowDown", b"InternalError"])

    def answer(method, path, sent):
        code = next(answers, None)
        return (400, {}, b"<Error><Code>%b</Code></Error>" % code) if code else ranged(DATA, sent)

    with Scripted(answer) as server:
        assert bounded(odd(server).read, "s3://b/x", 0, 10) == DATA[:10]
    body = b"<Error><Code>InvalidAccessKeyId</Code><Message>The \x1b[2Jkey</Message></Error>"
    with Scripted(lambda *asked: (403, {}, body)) as server:
        with pytest.raises(sp.AccessDenied, match=r"InvalidAccessKeyId: The \\x1b\[2Jkey.*with key of") as caught:
            bounded(odd(server).read, "s3://b/x", 0, 10)
        assert "hidden" not in str(caught.value)


def test_without_a_signature_nothing_is_signed_and_who_pays_is_said():
    with Scripted(lambda method, path, sent: ranged(DATA, sent)) as server:
        assert odd(server, anon=True).read("s3://b/a b/ü+.tar", 0, 5) == DATA[:5]
        assert "authorization" not in server.asked[0][2]
        assert server.asked[0][1] == "/b/a%20b/%C3%BC%2B.tar"
        odd(server, requester_pays=True).read("s3://b/x?versionId=v%2F1", 0, 5)
        assert server.asked[1][2]["x-amz-request-payer"] == "requester"
        assert "x-amz-request-payer" in server.asked[1][2]["authorization"]
        assert server.asked[1][1] == "/b/x?versionId=v%2F1"


def test_an_object_of_no_bytes_needs_no_size_in_the_refusal():
    with Scripted(
        lambda method, path, sent: (416, {}, b"") if "range" in sent else (200, {"ETag": '"1"'}, b"")
    ) as server:
        assert bounded(whole, odd(server), "s3://b/x") == b""


def test_names_that_clients_change_and_options_that_mean_nothing_are_refused():
    with pytest.raises(sp.ConfigError, match="has a part '.' or '..'"):
        Source(KEYS, network=NETWORK).read("s3://b/a/../c")
    with pytest.raises(sp.ConfigError, match="not session; .*'s3': 'fsspec'"):
        Source({**KEYS, "session": object()}, network=NETWORK).read("s3://b/a")
    with pytest.raises(sp.ShardMissing, match="names no object"):
        Source(KEYS, network=NETWORK).read("s3://b")


def test_a_folder_is_listed_as_it_is_now(s3):
    source = source_at(s3[1])
    for number in (1, 2):
        s3[0].put_object(Bucket="bucket", Key=f"listed/{number}.tar", Body=b"x")
        assert len(source.glob("s3://bucket/listed/*.tar")) == number
        assert source.is_directory("s3://bucket/listed/")
    s3[0].delete_object(Bucket="bucket", Key="listed/1.tar")
    assert source.glob("s3://bucket/listed/*.tar") == ["s3://bucket/listed/2.tar"]
