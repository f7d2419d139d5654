"""One runnable attack for each row of the threat model in SECURITY.md: refused by default, and the message says what to
do. The attacks on the structure of shards are in ``tests/tar/``, those on the packer in ``tests/pack/`` as well."""

import gzip
import io
import json
import os
import pickle
import resource
import socket
import tarfile
import time
import traceback
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import streampipe as sp
from streampipe.index import Finder, ShardIndex, manifest
from streampipe.index.columns import Columns
from streampipe.index.find import index_url
from streampipe.index.table import make
from streampipe.pack import pack
from streampipe.source import Source
from streampipe.source.address import address
from streampipe.source.web import web
from streampipe.tar import Limits
from streampipe.testing import FaultServer, Redirect, Reset, Status, WrongRange
from tests.data import encoded, natural, photo, shard, write_shards

QUICK = sp.Network(tries=2, first_wait=0.01, stall=5)


class Canary:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def archive(*entries):
    """A tar as an attacker makes it: (TarInfo, bytes)."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry, data in entries:
            tar.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def entry(name, size=0, **attributes):
    result = tarfile.TarInfo(name)
    result.size = size
    for key, value in attributes.items():
        setattr(result, key, value)
    return result


def streamed(folder, data, **options):
    (folder / "a.tar").write_bytes(data)
    return list(sp.stream(folder / "a.tar", **options).decode())


# Code in data


@pytest.mark.parametrize("name", ["pkl", "pickle", "pyd", "pth", "pt", "ckpt", "bin", "joblib", "dill", "pth.gz"])
def test_a_pickle_in_a_shard_is_not_run(tmp_path, name):
    data = pickle.dumps(Canary(tmp_path / "owned"))
    data = gzip.compress(data) if name.endswith("gz") else data
    with pytest.raises(sp.UnsafeFormat, match=r"sample 'k'.*register a decoder: decode\(decoders="):
        streamed(tmp_path, shard([("k", {name: data})]))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("packed", [False, True])
def test_an_array_of_objects_is_not_unpickled(tmp_path, packed):
    file = io.BytesIO()
    array = np.array([Canary(tmp_path / "owned")], object)
    np.savez(file, a=array) if packed else np.save(file, array, allow_pickle=True)
    with pytest.raises(sp.UnsafeFormat, match="register a decoder"):
        streamed(tmp_path, shard([("k", {"npz" if packed else "npy": file.getvalue()})]))
    assert not (tmp_path / "owned").exists()


def test_code_that_a_dataset_names_is_only_text(tmp_path):
    (tmp_path / "dataset.py").write_text("open('owned', 'w')")
    facts = {"__module__": "dataset", "__class__": "os.system", "py/object": "os.system"}
    yaml = b"!!python/object/apply:os.system ['touch owned']"
    (sample,) = streamed(tmp_path, shard([("k", {"json": json.dumps(facts), "yaml": yaml})]))
    assert sample["json"] == facts
    assert sample["yaml"] == yaml


# URLs that do more than read


@pytest.mark.parametrize("url", ["pipe:touch {}", "pipe:touch {}.tar", "exec:touch {}", "|touch {}", "$(touch {}).tar"])
def test_a_command_in_a_url_is_not_run(tmp_path, monkeypatch, url):
    owned = tmp_path / "owned"
    monkeypatch.setenv("WDS_REWRITE", "http=pipe:touch")
    monkeypatch.setenv("GOPEN_REWRITE", "http=pipe:touch")
    with pytest.raises((sp.ConfigError, sp.ShardMissing)) as error:
        list(sp.stream(url.format(owned)))
    assert not owned.exists()
    if url.startswith(("pipe:", "exec:")):
        assert "give opener=, a function of yours" in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "reference://spec.json",
        "github://org:repo@main/a.tar",
        "sftp://host/a.tar",
        "ssh://host/a.tar",
        "simplecache::https://host/a.tar",
        "filecache::s3://b/a.tar",
        "zip://a.tar::https://host/b.zip",
        "tar://a.tar::file:///etc/b.tar",
        "jar:file:///a.tar",
        "dbfs:/a.tar",
        "local://etc/passwd",
        "data:text/plain;base64,AAAA://x.tar",
        "http::file:///etc/passwd",
    ],
)
def test_a_url_does_not_choose_a_backend(url):
    with pytest.raises((sp.ConfigError, sp.ShardMissing)) as error:
        list(sp.stream(url, network=QUICK))
    if isinstance(error.value, sp.ConfigError):
        assert "schemes=(" in str(error.value)
    else:
        assert url.partition(":")[0] in ("jar", "dbfs", "data")  # taken for the name of a file


def test_braces_that_multiply_or_nest_cost_nothing():
    pattern = "s3://b/" + "{a,b,c,d,e,f,g,h,i,j}" * 18 + ".tar"
    start = time.process_time()
    assert len(sp.stream("{0..99999999999999}.tar", tier="sequential").source.shards) == 10**14
    assert len(sp.stream(pattern, tier="sequential").source.shards) == 10**18
    with pytest.raises(sp.ConfigError, match="braces too deep"):
        sp.stream("{" * 3000 + "a" + "}" * 3000 + ".tar")
    assert time.process_time() - start < 2


# Members that are no files


@pytest.mark.parametrize(
    ("name", "attributes", "error"),
    [
        ("k.txt", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, sp.UnsupportedMember),
        ("k.txt", {"type": tarfile.LNKTYPE, "linkname": "../secret"}, sp.UnsupportedMember),
        ("k.txt", {"type": tarfile.CHRTYPE}, sp.UnsupportedMember),
        ("k.txt", {"type": tarfile.BLKTYPE}, sp.UnsupportedMember),
        ("k.txt", {"type": tarfile.FIFOTYPE}, sp.UnsupportedMember),
        ("k.txt", {"type": tarfile.GNUTYPE_SPARSE}, sp.UnsupportedMember),
        ("../../etc/k.txt", {}, sp.UnsafeName),
        ("/etc/k.txt", {}, sp.UnsafeName),
        ("a\nk.txt", {}, sp.UnsafeName),
    ],
)
def test_a_member_that_is_no_file_or_climbs_is_refused(tmp_path, name, attributes, error):
    with pytest.raises(error, match=r"a\.tar, byte 0: member"):
        streamed(tmp_path, archive((entry(name, **attributes), b"")))


# Things without a bound


def many_fields():
    return archive(*[(entry(f"k.f{i}"), b"") for i in range(1025)])


def huge_member():
    block = bytearray(entry("k.txt").tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = b"\x80" + (1 << 40).to_bytes(11, "big")
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(1024)


def long_header():
    return archive((entry("n" * (1 << 20) + ".txt"), b""))


def inflated():
    packer = zlib.compressobj(9, wbits=31)
    return b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(100)), packer.flush()])


@pytest.mark.parametrize(
    ("make_shard", "limit"),
    [
        (many_fields, "max_sample_members"),
        (huge_member, "max_member_bytes"),
        (long_header, "max_header_bytes"),
        (inflated, "max_inflate_ratio"),
    ],
)
def test_what_has_no_bound_in_a_shard_is_given_one(tmp_path, make_shard, limit):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(sp.LimitExceeded, match=f"raise Limits.{limit}"):
        streamed(tmp_path, make_shard(), tier="sequential")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # kilobytes


def deep():
    return b"[" * 100_000


def long_number():
    return b"9" * 100_000


def gz_bomb():
    return gzip.compress(gzip.compress(bytes(300 << 20), 9), 9)


def npy_that_lies():
    file = io.BytesIO()
    np.save(file, np.zeros(4))
    return file.getvalue().replace(b"(4,)", b"(4000000000,)")


def cbor_that_lies():
    return b"\x9b" + (1 << 60).to_bytes(8, "big")  # an array of 2 ** 60 items


def msgpack_that_lies():
    return b"\xdd" + (0xFFFFFFFF).to_bytes(4, "big")


@pytest.mark.parametrize(
    ("name", "make_field"),
    [
        ("json", deep),
        ("json", long_number),
        ("cls", long_number),
        ("txt.gz.gz", gz_bomb),
        ("npy", npy_that_lies),
        ("cbor", cbor_that_lies),
        ("cbor", lambda: b"\x81" * 100_000 + b"\x00"),
        ("mp", msgpack_that_lies),
        ("mp", lambda: b"\x91" * 100_000 + b"\x00"),
    ],
)
def test_what_has_no_bound_in_a_field_is_given_one(tmp_path, name, make_field):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(sp.DecodeError, match="sample 'k'"):
        streamed(tmp_path, shard([("k", {name: make_field()})]))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 700 << 10


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path):
    bomb = encoded(Image.new("1", (13_000, 13_000)), "PNG")
    assert len(bomb) < 200_000
    with pytest.raises(sp.DecodeError, match=r"13000 x 13000 pixels.*raise max_pixels"):
        streamed(tmp_path, shard([("k", {"png": bomb})]))


def test_an_index_or_manifest_that_unpacks_without_end_is_refused():
    row = {"key": "k", "offset": 0, "size": 512, "crc32": 0, "fields": [], "width": None, "height": None}
    index = make([row] * 200_000, Columns([{"text": "x" * 1000}] * 200_000), {"bytes": 10**9}).to_bytes()
    assert len(index) < 1 << 20
    with pytest.raises(sp.IndexMismatch, match=r"unpacks to .* raise Limits\.max_index_bytes"):
        ShardIndex.from_bytes(index, "a.index.parquet", 50 << 20)
    table = pa.table({"shard": ["x" * 1000] * 100_000})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    with pytest.raises(sp.IndexMismatch, match=r"Limits\.max_index_bytes"):
        manifest.read(sink.getvalue(), "manifest.parquet", 10 << 20)


def test_an_index_that_is_larger_than_the_limit_is_not_read(tmp_path):
    (tmp_path / "a.tar").write_bytes(shard([("k", {"txt": "x"})]))
    (tmp_path / "a.index.parquet").write_bytes(bytes(5000))
    with FaultServer({"a.tar": b"", "a.index.parquet": bytes(5000)}) as server:
        for url in (str(tmp_path / "a.tar"), server.url("a.tar")):
            with pytest.raises(sp.SourceError, match="more than 1000 bytes"):
                Finder(Source(network=QUICK), Limits(max_index_bytes=1000)).find(url)


# Images that are something else


@pytest.mark.parametrize("kind", ["EPS", "TIFF", "BMP", "ICO", "PPM", "TGA", "PCX", "PDF"])
def test_no_other_parser_is_reached_by_way_of_a_name(tmp_path, kind, monkeypatch):
    data = encoded(natural(16, 16), kind)
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("Ghostscript was called"))
    with pytest.raises(sp.DecodeError, match="no image of the formats JPEG, PNG, WEBP, GIF, AVIF"):
        streamed(tmp_path, shard([("k", {"jpg": data})]))


# Redirections


@pytest.fixture
def connected(monkeypatch):
    """Every address that anything tries to connect to. Only loopback is really reached."""
    seen, really = [], socket.socket.connect

    def connect(self, address):
        seen.append(address[0])
        if address[0] not in ("127.0.0.1", "::1"):
            raise AssertionError(f"connected to {address}")
        return really(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    return seen


def resolve(host, port, *_, **__):
    address = {"metadata.google.internal": "169.254.169.254", "2852039166": "169.254.169.254"}.get(host, host)
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port or 0))]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("http://169.254.169.254/latest/meta-data/iam", r"link-local.*redirects_to=\('169.254.169.254',\)"),
        ("http://[::ffff:169.254.169.254]/", "link-local"),
        ("http://[fe80::1]/", "link-local"),
        ("http://[fd00:ec2::254]/", "link-local"),
        ("http://100.100.100.200/", "link-local"),
        ("http://2852039166/", "link-local"),
        ("http://metadata.google.internal/", "link-local"),
        ("http://metadata.google.internal./", "link-local"),
        ("http://169.254.169.254\\@127.0.0.1/x", "backslash"),
        ("http:\\\\169.254.169.254/x", "is not followed"),
        ("//169.254.169.254\\@127.0.0.1/x", "backslash"),
        ("http://127.0.0.1\t@169.254.169.254/", "control character"),
        ("http://168.63.129.16/metadata", "link-local"),
        ("http://192.0.0.192/", "link-local"),
        ("http://[fd00:ec2::23]/v1/credentials", "link-local"),
        ("http://[64:ff9b::169.254.169.254]/", "link-local"),
        ("http://[64:ff9b:1::a9fe:a9fe]/", "link-local"),
        ("http://0xa9fea9fe/", "link-local"),
        ("http://0251.0376.0251.0376/", "link-local"),
        ("http://169.254.43518/", "link-local"),
        ("http://169.254.169.254./", "link-local"),
        ("http://me@169.254.169.254:80/", "link-local"),
        ("file:///etc/passwd", "leaves http"),
        ("ftp://127.0.0.1/a.tar", "leaves http"),
        ("gopher://127.0.0.1/", "leaves http"),
    ],
)
def test_a_redirection_to_where_only_this_machine_can_go_is_not_followed(connected, monkeypatch, target, words):
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with FaultServer({"a.tar": b""}) as server:
        server.script("a.tar", always=Redirect(target, head=True))
        with pytest.raises(sp.SourceError, match=words):
            list(sp.stream(server.url("a.tar"), network=QUICK, tier="sequential"))
        assert {request.name for request in server.requests} == {"a.tar"}
    assert set(connected) == {"127.0.0.1"}


def test_a_redirection_never_weakens_and_ends(connected):
    with pytest.raises(sp.SourceError, match="leaves https"):
        web({}, QUICK)._check_hop("https://h/a", address("https://h/a"), "http://h/a")
    with FaultServer({"a.tar": b""}) as server:
        server.script("a.tar", always=Redirect(server.url("a.tar"), head=True))
        with pytest.raises(sp.SourceError, match="more than 5 redirections"):
            list(sp.stream(server.url("a.tar"), network=QUICK, tier="sequential"))
        assert len(server.requests) == 6


def test_credentials_do_not_follow_a_redirection_to_another_host():
    seen = []

    class Listening(FaultServer):
        def _fault(self, request):
            seen.append({name.lower(): value for name, value in request.headers.items()})
            return super()._fault(request)

    with Listening({"a.tar": shard([("k", {"txt": "x"})])}) as there, FaultServer({"a.tar": b""}) as here:
        here.script("a.tar", always=Redirect(there.url("a.tar"), head=True))
        options = {"headers": {"Authorization": "Bearer secret", "Cookie": "secret"}}
        pipe = sp.stream(here.url("a.tar"), network=QUICK, tier="sequential", storage_options=options)
        assert [sample["__key__"] for sample in pipe] == ["k"]
    assert seen
    assert not any({"authorization", "cookie"} & set(headers) for headers in seen)


# Secrets in text


def told(urls, **options):
    """Everything that a user may see of a pipeline: its names, what it raises (the whole traceback), what it yields."""
    pipe = None
    try:
        pipe = sp.stream(urls, network=QUICK, **options)
        texts = [str([sample["__url__"] for sample in pipe])]
    except sp.StreampipeError:
        texts = [traceback.format_exc()]
    if pipe is not None:
        texts += [repr(pipe), repr(pipe.source.shards), pipe.report()]
        try:
            texts.append(pipe.explain())
        except sp.StreampipeError as error:
            texts.append(str(error))
    return "\n".join(texts)


def test_no_secret_of_a_url_is_shown(caplog):
    sound, small = shard([("k", {"txt": "x"})]), b"no archive"
    with FaultServer({"a.tar": sound, "b.tar": small}) as server:
        signed = server.url("{}").replace("%7B%7D", "{}").replace("http://", "http://me:SECRET@") + "?X-Sig=SECRET/x"
        texts = [told(signed.format(name)) for name in ("a.tar", "b.tar", "missing.tar", "*.tar", "a{{0..2}}.tar")]
        for fault in (Status(503), Status(403), Reset(10), WrongRange(), Redirect("ftp://u:SECRET@h/x?SECRET")):
            server.script("a.tar", always=fault)
            texts += [told(signed.format("a.tar"), tier=tier) for tier in (None, "sequential")]
        texts.append(told([signed.format("a.tar"), signed.format("b.tar")], on_error="skip"))
        texts.append(told(signed.format("a.tar") + "::" + signed.format("b.tar")))
    for url in (signed.format("a.tar"), signed.format("dir/"), "s3://me:SECRET@bucket/a.tar", "odd://u:SECRET@h/a.tar"):
        texts.append(told(url))
    assert "http://127.0.0.1" in texts[0]
    for text in [*texts, *(record.getMessage() for record in caplog.records if record.name == "streampipe")]:
        assert "SECRET" not in text, text


def test_a_signed_url_is_read_and_has_no_index_beside_it():
    with FaultServer({"a.tar": shard([("k", {"txt": "x"})])}) as server:
        pipe = sp.stream(server.url("a.tar") + "?X-Sig=b/c", network=QUICK)
        assert [sample["__key__"] for sample in pipe] == ["k"]
        assert {request.name for request in server.requests} == {"a.tar"}
    assert index_url("https://h/a.tar?sig=b/c", "s3://facts") == "s3://facts/a.index.parquet"


# Files that somebody else could have put there


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_cache_that_others_can_write_to_is_refused(tmp_path, mode):
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(sp.ConfigError, match=r"can be written by others, who could plant training data; chmod go-w"):
        sp.stream("http://127.0.0.1:1/a.tar", cache=folder)
    assert sp.Cache(tmp_path / "fresh").folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_cache_that_belongs_to_somebody_else_is_refused(tmp_path):
    (tmp_path / "cache").mkdir(mode=0o700)
    os.chown(tmp_path / "cache", 65534, 65534)
    with pytest.raises(sp.ConfigError, match="belongs to user 65534, not to you"):
        sp.Cache(tmp_path / "cache")


def test_remembered_scans_that_others_can_write_to_are_not_used(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("STREAMPIPE_CACHE", str(tmp_path / "memory"))
    write_shards(tmp_path, [3])
    finder = Finder(Source(), Limits())
    assert len(finder.find(str(tmp_path / "00000.tar"))) == 3
    (planted,) = (tmp_path / "memory" / "index").iterdir()
    planted.write_bytes(make([], Columns(), {"bytes": 0}).to_bytes())
    (tmp_path / "memory" / "index").chmod(0o777)
    assert len(finder.find(str(tmp_path / "00000.tar"))) == 3
    assert "can be written by others" in caplog.text


def test_links_out_of_a_folder_are_not_packed(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.jpg").write_bytes(photo())
    (tmp_path / "in" / "a.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(sp.PackError, match="symbolic link out of the folder"):
        pack(str(tmp_path / "in"), str(tmp_path / "out"), progress=False)


# States


def test_a_state_is_plain_json_and_nothing_else(tmp_path):
    write_shards(tmp_path, [6])
    for tier in ("planned", "sequential"):
        loader = sp.stream(tmp_path, tier=tier).batch(2).loader()
        next(iter(loader))
        state = loader.state_dict()
        assert json.dumps(json.loads(json.dumps(state))) == json.dumps(state)
        with pytest.raises((sp.ConfigError, TypeError, ValueError)):
            loader.load_state_dict(pickle.dumps(Canary(tmp_path / "owned")))
    assert not (tmp_path / "owned").exists()
