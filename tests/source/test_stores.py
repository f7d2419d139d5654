"""Object stores by fsspec, and a user's own opener: one version, exact ranges, whatever the backend does."""

import io
import sys
import threading
import zipfile

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import streampipe as sp
from streampipe.source import Network, Source
from streampipe.source.store import Pin
from streampipe.source.stores import FsspecStore, OpenerStore
from streampipe.testing import BrokenOpener
from streampipe.urls import expand
from tests.source.conftest import DATA, QUICK, bounded, whole


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    fs.pipe("/store/a.tar", DATA)
    fs.pipe("/store/empty.tar", b"")
    yield fs
    fs.rm("/store", recursive=True)


def test_an_fsspec_store_gives_all_bytes(memory, source):
    assert whole(source, "memory://store/a.tar") == DATA
    assert whole(source, "memory://store/empty.tar") == b""
    assert source.read("memory://store/a.tar", 5, 500_000) == DATA[5:500_000]
    assert source.size("memory://store/a.tar") == len(DATA)
    with pytest.raises(sp.ShardMissing, match="memory://store/none.tar does not exist"):
        whole(source, "memory://store/none.tar")
    with pytest.raises(sp.ShardMissing):
        whole(source, "memory://store")  # a directory


def test_an_object_replaced_between_any_two_requests_is_never_mixed(memory, monkeypatch):
    """Such a store answers with whatever is there: each range is compared before a byte of it is given out."""
    real = type(memory).cat_file
    for number in range(1, 6):
        calls = iter(range(100))
        memory.pipe("/store/a.tar", DATA)

        def cat_file(self, path, *args, number=number, calls=calls, **options):
            if next(calls) == number:
                self.pipe("/store/a.tar", DATA[::-1])
            return real(self, path, *args, **options)

        monkeypatch.setattr(type(memory), "cat_file", cat_file)
        got = []
        with pytest.raises(sp.ShardChanged):
            for chunk in Source(network=QUICK).chunks("memory://store/a.tar"):
                got.append(chunk)
        assert DATA.startswith(b"".join(got))


class Flaky:
    """A filesystem of one file; each entry of ``script`` is what happens to a request for bytes."""

    async_impl = False

    def __init__(self, *script):
        self.script, self.version = list(script), "1"

    def _strip_protocol(self, url):
        return url.partition("://")[2]

    def invalidate_cache(self, path):
        pass

    def info(self, path):
        return {"size": len(DATA), "etag": self.version, "type": "file"}

    def cat_file(self, path, start, end):
        happens = self.script.pop(0) if self.script else None
        if isinstance(happens, Exception):
            raise happens
        return (happens or (lambda start, end: DATA[start:end]))(start, end)


def store_of(fs, monkeypatch, network=QUICK):
    monkeypatch.setattr(FsspecStore, "_make", lambda self, url, options: fs)
    return Source(network=network)


def test_short_long_and_wrong_answers_never_pass(monkeypatch):
    script = [
        lambda start, end: DATA[start : end - 7],  # short
        lambda start, end: b"",
        lambda start, end: DATA,  # the whole object: the range was ignored
        lambda start, end: DATA[start : end + 9],  # long, and no telling which bytes these are
        IndexError("tuple index out of range"),
        OSError("reset"),
    ]
    source = store_of(Flaky(*script), monkeypatch, Network(tries=5, first_wait=0, window=128 << 10, requests=1))
    assert bounded(whole, source, "az://container/a.tar") == DATA


def test_credentials_are_named_by_option(monkeypatch):
    for options, said in (
        ({"account_key": "hidden"}, "with account_key of storage_options"),
        ({"anon": True}, "without credentials"),
        ({}, "with what the environment and configuration files give"),
    ):
        monkeypatch.setattr(FsspecStore, "_make", lambda self, url, options: Flaky(PermissionError("hidden?no")))
        with pytest.raises(sp.AccessDenied, match=said):
            whole(Source(options, network=QUICK), "az://container/a.tar")


def test_the_filesystem_is_made_anew_when_credentials_run_out(monkeypatch):
    made = []

    def make(self, url, options):
        made.append(options.get("skip_instance_cache", False))
        return Flaky(None, PermissionError("expired")) if len(made) == 1 else Flaky()

    monkeypatch.setattr(FsspecStore, "_make", make)
    assert whole(Source(network=Network(requests=1, window=128 << 10)), "az://container/a.tar") == DATA
    assert made == [False, True]


def test_a_stalled_asynchronous_store_has_a_deadline(monkeypatch):
    import asyncio

    from fsspec.asyn import get_loop

    class Stalled(Flaky):
        async_impl = True
        loop = get_loop()
        calls = 0

        async def _info(self, path):
            return self.info(path)

        async def _cat_file(self, path, start, end):
            self.calls += 1
            if self.calls == 1:
                await asyncio.sleep(3600)
            return self.cat_file(path, start, end)

    fs = Stalled()
    source = store_of(fs, monkeypatch, Network(stall=0.3, first_wait=0))
    assert bounded(whole, source, "az://container/a.tar") == DATA
    assert fs.calls > 1


def test_a_missing_package_and_bad_options_say_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(sp.ConfigError, match="needs a package that is not installed"):
        whole(Source(network=QUICK), "az://container/a.tar")
    with pytest.raises(sp.ConfigError, match="needs a package that is not installed|cannot be opened"):
        whole(Source(network=QUICK), "gs://bucket/a.tar")
    with pytest.raises(sp.ConfigError, match="storage_options for s3 take"):
        whole(Source({"nonsense_option": 1}, network=QUICK), "s3://bucket/a.tar")


def test_an_opener_is_used_for_every_url():
    opener = BrokenOpener({"weird:1": DATA, "a.tar": DATA[::-1]})
    source = Source(opener=opener, network=QUICK)
    assert whole(source, "weird:1") == DATA
    assert whole(source, "a.tar") == DATA[::-1]
    with pytest.raises(sp.ShardMissing, match="none does not exist"):
        whole(source, "none")


def test_an_opener_whose_file_cannot_seek_is_skipped_forward():
    class Pipe(io.RawIOBase):
        def __init__(self, data, breaks):
            self.file, self.breaks = io.BytesIO(data), breaks

        def read(self, size=-1):
            if self.breaks and self.file.tell() >= self.breaks[0]:
                self.breaks.pop(0)
                raise ConnectionResetError("reset")
            return self.file.read(min(size, 10_000))

    breaks = [100_000, 400_000]
    assert whole(Source(opener=lambda url: Pipe(DATA, breaks), network=QUICK), "x") == DATA


def test_an_opener_that_says_a_size_and_ends_early_is_truncated():
    class Short(io.BytesIO):
        size = 1000

    with pytest.raises(sp.TruncatedShard, match="ends at byte 10"):
        whole(Source(opener=lambda url: Short(b"x" * 10), network=QUICK), "x")


def test_an_opener_whose_object_changes_its_size_is_noticed_and_closed():
    files = []

    class Sized(io.BytesIO):
        def __init__(self, data):
            super().__init__(data)
            self.size = len(data)
            files.append(self)

    store = OpenerStore(lambda url: Sized(b"x" * 10))
    assert store.pin("x") == Pin(10)
    with pytest.raises(sp.ShardChanged, match="9 bytes became 10"):
        store.get("x", 0, None, Pin(9))
    assert all(file.closed for file in files)


def test_an_openers_own_errors_are_ours_and_hide_nothing_of_his():
    def opener(url):
        raise KeyError("no such bucket")

    with pytest.raises(sp.ConfigError, match=r"KeyError: 'no such bucket'.*opener="):
        whole(Source(opener=opener, network=QUICK), "x")


def test_a_source_is_shared_by_threads(memory, source):
    got = []
    threads = [
        threading.Thread(target=lambda: got.append(whole(source, "memory://store/a.tar") == DATA)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert got == [True] * 8


class _Accounts(MemoryFileSystem):
    """A filesystem whose URLs name an account, which its paths do not: as those of Azure, ftp and ssh do."""

    protocol = "accounts"

    def __init__(self, account=None, **options):
        super().__init__(**options)
        self.account = account

    @classmethod
    def _strip_protocol(cls, path):
        container, _, rest = path.removeprefix("accounts://").partition("/")
        return f"{container.partition('@')[0]}/{rest}"

    @staticmethod
    def _get_kwargs_from_urls(url):
        return {"account": url.removeprefix("accounts://").partition("/")[0].partition("@")[2]}

    def info(self, path, **_):
        return {"name": path, "size": len(self.account), "type": "file"}

    def cat_file(self, path, start=None, end=None, **_):
        return self.account.encode()[start:end]

    def glob(self, path, **_):
        return [path.replace("*", "0")]


def test_each_account_is_asked_for_its_own_objects():
    fsspec.register_implementation("accounts", _Accounts, clobber=True)
    source = Source(network=Network(schemes=("accounts",)))
    for account in ("one", "second"):
        (found,) = source.glob(f"accounts://box@{account}/d/*.tar")
        assert found == f"accounts://box@{account}/d/0.tar"
        assert source.read(found) == account.encode()


def test_each_archive_gives_its_own_members(tmp_path):
    for name in ("a", "b"):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr("0.tar", name)
    source = Source(network=Network(schemes=("zip",)))
    for name in ("a", "b"):
        (found,) = source.glob(f"zip://*.tar::file://{tmp_path}/{name}.zip")
        assert found == f"zip://0.tar::file://{tmp_path}/{name}.zip"
        assert source.read(found) == name.encode()


def test_a_folder_of_a_store_is_the_one_of_its_name(memory):
    for name in ("run[1]", "run1"):
        memory.pipe(f"/store/{name}/0.tar", b"")
    for name in ("run[1]", "run1"):
        assert list(expand([f"memory://store/{name}/"], Source)) == [f"memory://store/{name}/0.tar"]
