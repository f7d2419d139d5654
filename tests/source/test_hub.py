"""hf:// by a stand-in for the hub: the revision is resolved once, files are read at the commit, refusals are final."""

import pickle
import re

import pytest

import streampipe as sp
from streampipe.source import Network, Source
from tests.source.conftest import DATA, Scripted, bounded, ranged, whole

COMMIT = "ab" * 20


class Repository:
    """One dataset; ``refusals`` by 'api' and 'file' answer in its place."""

    def __init__(self):
        self.refusals = {}
        self.commit = COMMIT

    def __call__(self, method, path, sent):
        kind = "api" if path.startswith("/api/") else "file"
        if kind in self.refusals:
            return self.refusals[kind]
        if found := re.fullmatch(r"/api/datasets/o/d/revision/(.+)", path):
            known = {"main": self.commit, "v1.0": "cd" * 20, "refs%2Fconvert%2Fparquet": "ef" * 20}
            sha = known.get(found[1])
            return (
                (200, {}, b'{"sha": "%b"}' % sha.encode()) if sha else (404, {"X-Error-Code": "RevisionNotFound"}, b"")
            )
        if found := re.fullmatch(r"/datasets/o/d/resolve/([0-9a-f]{40})/data/a\.tar", path):
            return ranged(DATA, sent, ETag=f'"{found[1][:2]}"')
        return 404, {"X-Error-Code": "EntryNotFound"}, b""


@pytest.fixture
def repository():
    return Repository()


@pytest.fixture
def hub(repository):
    with Scripted(repository) as server:
        yield server


def source_of(hub, **options):
    network = Network(tries=3, first_wait=0, window=128 << 10)
    return Source({"endpoint": hub.at, "token": "hf_secret", **options}, network=network)


def paths(hub, kind):
    return [path for _, path, _ in hub.asked if path.startswith("/api/") == (kind == "api")]


def test_a_revision_is_resolved_once_and_nothing_is_listed(hub):
    source = source_of(hub)
    assert bounded(whole, source, "hf://datasets/o/d/data/a.tar") == DATA
    assert source.read("hf://datasets/o/d/data/a.tar", 5, 9) == DATA[5:9]
    assert source.read_if_there("hf://datasets/o/d/data/a.index.parquet") is None
    assert paths(hub, "api") == ["/api/datasets/o/d/revision/main"]  # also where many threads begin together
    assert all(f"/resolve/{COMMIT}/" in path for path in paths(hub, "file"))
    assert {sent["authorization"] for _, _, sent in hub.asked} == {"Bearer hf_secret"}


def test_all_processes_of_a_job_read_the_same_commit(hub, repository):
    source = source_of(hub)
    source.read("hf://datasets/o/d/data/a.tar", 0, 1)
    repository.commit = "00" * 20  # somebody pushes
    worker = pickle.loads(pickle.dumps(source))
    worker.read("hf://datasets/o/d/data/a.tar", 1, 2)
    assert all(COMMIT in path for path in paths(hub, "file"))
    source_of(hub).read("hf://datasets/o/d/data/a.tar", 0, 1)  # another job sees what is there now
    assert "00" * 20 in paths(hub, "file")[-1]


@pytest.mark.parametrize(
    ("url", "commit", "asked"),
    [
        ("hf://datasets/o/d@v1.0/data/a.tar", "cd" * 20, 1),
        (f"hf://datasets/o/d@{'12' * 20}/data/a.tar", "12" * 20, 0),
        ("hf://datasets/o/d@refs/convert/parquet/data/a.tar", "ef" * 20, 1),
        ("hf://datasets/o/d@refs%2Fconvert%2Fparquet/data/a.tar", "ef" * 20, 1),
    ],
)
def test_revisions_are_names_commits_and_refs(hub, url, commit, asked):
    source_of(hub).read(url, 0, 5)
    assert len(paths(hub, "api")) == asked
    assert commit in paths(hub, "file")[-1]


def test_a_question_mark_may_be_part_of_a_name(hub):
    with pytest.raises(sp.ShardMissing):
        source_of(hub).read("hf://datasets/o/d/data/a.tar?b")
    assert source_of(hub).read("hf://datasets/o/d/data/a.tar?download=true", 0, 5) == DATA[:5]


@pytest.mark.parametrize("kind", ["api", "file"])
@pytest.mark.parametrize(
    ("status", "headers", "says"),
    [
        (403, {"X-Error-Code": "GatedRepo"}, "accept its conditions at .*/datasets/o/d"),
        (401, {}, "no such repository, or it is private"),
        (403, {}, "asked for with token of storage_options"),
    ],
)
def test_what_the_hub_refuses_is_denied_at_once(hub, repository, kind, status, headers, says):
    repository.refusals[kind] = (status, headers, b"no")
    with pytest.raises(sp.AccessDenied, match=f"hf://datasets/o/d/data/a.tar.*{says}") as caught:
        bounded(source_of(hub).read, "hf://datasets/o/d/data/a.tar", 0, 5)
    assert len(paths(hub, kind)) == 1
    assert "hf_secret" not in str(caught.value)


def test_a_revision_or_file_that_is_not_there_is_missing(hub):
    with pytest.raises(sp.ShardMissing, match="its revision nope cannot be had"):
        source_of(hub).read("hf://datasets/o/d@nope/data/a.tar")
    with pytest.raises(sp.ShardMissing, match="EntryNotFound"):
        source_of(hub).read("hf://datasets/o/d/none.tar")


def test_a_limit_of_requests_is_waited_for(hub, repository):
    answers = iter([(429, {"RateLimit": '"resolvers";r=0;t=1'}, b""), (429, {"Retry-After": "0"}, b"")])
    with Scripted(lambda *asked: next(answers, None) or repository(*asked)) as busy:
        assert bounded(source_of(busy).read, "hf://datasets/o/d/data/a.tar", 0, 5) == DATA[:5]


def test_a_token_is_found_where_the_hub_keeps_it_or_left_away(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_environment")
    source_of(hub, token=None).read("hf://datasets/o/d/data/a.tar", 0, 5)
    assert hub.asked[-1][2]["authorization"] == "Bearer hf_environment"
    source_of(hub, token=False).read("hf://datasets/o/d/data/a.tar", 0, 5)
    assert "authorization" not in hub.asked[-1][2]


@pytest.mark.parametrize("url", ["hf://datasets/d/a.tar", "hf://datasets/o/d", "hf://buckets/o/d/a.tar", "hf://a.tar"])
def test_what_names_no_file_of_a_repository_is_refused(hub, url):
    with pytest.raises(sp.ConfigError, match="names no file of a repository"):
        source_of(hub).read(url)
    with pytest.raises(sp.ConfigError, match="storage_options for hf take token= and endpoint="):
        source_of(hub, expand_info=False).read("hf://datasets/o/d/data/a.tar")


def test_the_token_does_not_follow_a_redirection_to_another_host(repository):
    with Scripted(lambda method, path, sent: ranged(DATA, sent)) as store:

        def answer(method, path, sent):
            if "/resolve/" in path:
                return 302, {"Location": f"{store.at}/blob?Signature=hidden"}, b""
            return repository(method, path, sent)

        with Scripted(answer) as hub:
            assert bounded(whole, source_of(hub), "hf://datasets/o/d/data/a.tar") == DATA
            assert len(paths(hub, "file")) == 1  # where it led is remembered
            assert not any("authorization" in sent for _, _, sent in store.asked)
