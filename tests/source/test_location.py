"""Which URLs are read at all, and that what is secret in them is never shown."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

import streampipe as sp
from streampipe.source import Source, local_path, redact
from streampipe.source.location import check_scheme, is_chain, redacted, scheme_of


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h/a.tar?X-Amz-Signature=abc", "https://h/a.tar"),
        ("s3://key:secret@bucket/a.tar#x", "s3://bucket/a.tar"),
        ("HTTPS://me@h:8080/a.tar", "HTTPS://h:8080/a.tar"),
        ("http://[::1]:80/a.tar?x=1", "http://[::1]:80/a.tar"),
        ("https://me:p/ss@h/a.tar", "https://h/a.tar"),
        ("https://me:p#ss@h/a.tar?sig=1", "https://h/a.tar"),
        ("https://me:p?ss@h/a.tar", "https://h/a.tar"),
        ("https://h.test:8080/a@b.tar", "https://h.test:8080/a@b.tar"),
        ("http://localhost:8080/a@b.tar", "http://localhost:8080/a@b.tar"),
        ("http://[::1]:8080/a@b.tar", "http://[::1]:8080/a@b.tar"),
        ("http://minio:9000/a.tar", "http://minio:9000/a.tar"),
        (
            "https://me:12/34@h/a.tar",
            "https://...@h/a.tar",
        ),  # perhaps a port
        ("hf://datasets/o/d@main/a.tar", "hf://datasets/o/d@main/a.tar"),
        ("zip://x::https://me:pw@h/a.zip?sig=1", "zip://x::https://h/a.zip"),
        ("https://me:pw@h/a?sig=1::s3://k:s@b/c", "https://h/a::s3://b/c"),
        ("http://[bad/a?sig=1", "http://[bad/a"),
        ("memory://a/b.tar", "memory://a/b.tar"),
        ("file:///data/a.tar", "file:///data/a.tar"),
        ("data/what?.tar", "data/what?.tar"),
        ("pipe:curl https://me:pw@h/a?sig=1", "pipe:curl https://h/a"),
    ],
)
def test_what_is_secret_is_not_shown(url, shown):
    assert redact(url) == shown


_word = st.text(string.ascii_letters + string.digits + "%-_.~", min_size=4, max_size=20).map(lambda text: f"Z{text}Z")


@given(user=_word, password=_word, query=_word, text=st.text(max_size=20))
def test_no_message_holds_a_secret(user, password, query, text):
    url = f"https://{user}:{password}@host/a.tar?sig={query}"
    said = redacted(f"{text} {url} {text} /a.tar?sig={query} {text} {user}:{password}@host", url)
    assert password not in said
    assert query not in said
    assert "host/a.tar" in said


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("a.tar", "a.tar"),
        ("file:///a.tar", "/a.tar"),
        ("/x/{b}.tar", "/x/{b}.tar"),
        ("s3://b/a.tar", None),
        ("pipe:cat a.tar", None),
        ("simplecache::s3://b/a", None),
    ],
)
def test_a_local_path_is_told_from_a_url(url, path):
    assert local_path(url) == path


def test_schemes_and_chains():
    assert [scheme_of(url) for url in ("S3://b/a", "a.tar", "simplecache::s3://b/a")] == ["s3", "file", "simplecache"]
    assert is_chain("simplecache::s3://b/a")
    assert is_chain("zip://x::http://[::1]/a")
    assert not is_chain("http://[::1]:80/a")


@pytest.mark.parametrize(
    "url",
    ["pipe:cat a.tar", "exec:rm -r x"],
)
def test_commands_are_never_run_whatever_is_allowed(url):
    with pytest.raises(sp.ConfigError, match="is never run"):
        check_scheme(url, ("pipe", "exec"))


@pytest.mark.parametrize(
    ("url", "scheme"),
    [
        ("sftp://h/a", "sftp"),
        ("github://o:r@/a", "github"),
        ("reference://a", "reference"),
        ("simplecache::s3://b/a", "simplecache"),
        ("zip://a::https://h/a.zip", "zip"),
        ("file::s3://b/a", "file"),
    ],
)
def test_other_schemes_are_refused_until_they_are_allowed(url, scheme):
    with pytest.raises(sp.ConfigError, match=rf"network=sp.Network\(schemes=\('{scheme}',\)\)"):
        check_scheme(url)
    check_scheme(url, (scheme,))
    with pytest.raises(sp.ConfigError, match="are not read unless"):
        list(Source().chunks(url))


def test_usual_schemes_are_allowed():
    for url in ("s3://b/a", "gs://b/a", "az://b/a", "hf://datasets/x/a", "https://h/a", "http://[::1]/a", "memory://a"):
        check_scheme(url)
