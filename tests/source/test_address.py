"""One parser for check and for connection, and every way to write where a metadata service is."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.util import parse_url

import streampipe as sp
from streampipe.source.address import address, is_metadata, joined, same_owner

SERVICES = ("169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "192.0.0.192")


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254\\@127.0.0.1/x",
        "http://127.0.0.1\\x",
        "http:\\\\127.0.0.1/x",
        "http://127.0.0.1/\tx",
        "http://127.0.0.1\r\nHost: x/",
        "http://127.0.0.1/\x00",
        "http://127.0.0.1:80:90/",
        "http://127.0.0.1:99999/",
        "http:///x",
        "ftp://127.0.0.1/x",
        "//127.0.0.1/x",
        "http://\uff11\uff12\uff17.0.0.1/",
    ],
)
def test_what_readers_of_urls_disagree_about_is_refused(url):
    with pytest.raises(sp.ConfigError, match="is not a URL that can be requested"):
        address(url)


def test_an_error_shows_no_secret_of_the_url():
    with pytest.raises(sp.ConfigError) as caught:
        address("http://me:hidden@host:99999/a?sig=hidden")
    assert "hidden" not in str(caught.value)


def test_the_parts_of_a_url_are_those_that_are_requested():
    at = address("http://me:p%40w@EXAMPLE.org:8080/a b/ä.tar?q=1#part")
    assert at[:5] == ("http", "example.org", 8080, "http://example.org:8080/a%20b/%C3%A4.tar?q=1", "me:p@w")
    assert address("http://[::1]/a::b.tar").host == "::1"
    assert at.target == "/a%20b/%C3%A4.tar?q=1"
    assert (address("https://h/x").port, address("https://h").target) == (443, "/")


@given(st.text(alphabet="abc/:@?#[]\\%.0123456789 \t\n-_ä", max_size=40))
def test_what_is_requested_parses_to_the_same_parts(text):
    try:
        at = address(f"http://{text}")
    except sp.ConfigError:
        return
    parsed = parse_url(at.url)
    assert (parsed.scheme, parsed.host.strip("[]"), parsed.port or 80, parsed.auth) == (
        at.scheme,
        at.host,
        at.port,
        None,
    )
    assert address(at.url) == at._replace(user=None)


def spellings(ip):
    """Ways to write an IPv4 address that somebody's resolver or parser understands."""
    number, parts = int(ipaddress.IPv4Address(ip)), [int(each) for each in ip.split(".")]
    yield from (ip, f"{ip}.", f"{number}", f"0x{number:x}", f"0{number:o}")
    yield ".".join(f"0x{each:x}" for each in parts)
    yield ".".join(f"0{each:o}" for each in parts)
    yield f"{parts[0]}.{parts[1]}.{parts[2] * 256 + parts[3]}"
    for before in ("::ffff:", "::", "64:ff9b::", "64:ff9b:1::", "::ffff:0:"):
        yield f"{before}{ip}"
        yield f"[{before}{number >> 16:x}:{number & 0xFFFF:x}]"
    yield f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1"


@pytest.mark.parametrize("ip", SERVICES)
def test_a_metadata_service_is_known_however_it_is_written(ip):
    for host in spellings(ip):
        assert is_metadata(host, link_local=False, resolve=False), host


@pytest.mark.parametrize(
    "host",
    [
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "fd00:42::42",
        "metadata.google.internal",
        "METADATA.GOOG.",
        "metadata",
    ],
)
def test_services_by_ipv6_and_by_name_are_known(host):
    assert is_metadata(host, link_local=False, resolve=False)


def test_link_local_addresses_count_where_a_server_leads_us():
    for host in ("169.254.1.1", "fe80::1", "fe80::1%eth0", "::ffff:169.254.1.1"):
        assert is_metadata(host)
        assert not is_metadata(host, link_local=False)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "::1", "10.0.0.1", "8.8.8.8", "2001:db8::1", "example.org", "64:ff9b::8.8.8.8"]
)
def test_other_addresses_are_left_alone(host):
    assert not is_metadata(host, resolve=False)


def test_where_a_redirection_leads():
    assert joined("https://h/a/b.tar", "c.tar") == "https://h/a/c.tar"
    assert joined("https://h/a", "//other/x") == "https://other/x"
    assert joined("https://h/a", "/\xc3\xa4") == "https://h/%C3%A4"  # bytes of UTF-8, as a header brings them
    with pytest.raises(sp.ConfigError):
        joined("http://h/a", "http://127.0.0.1\t@169.254.169.254/")
    with pytest.raises(sp.ConfigError):
        address(joined("http://h/a", "//169.254.169.254\\@h/x"))


def test_whose_credentials_are_whose():
    def same(first, second):
        return same_owner(address(first), address(second))

    assert same("http://h/a", "http://h:80/b")
    assert same("http://h/a", "https://h/a")
    assert same("http://me:pw@h/a", "http://h/a")
    assert not same("http://h/a", "http://h:81/a")
    assert not same("https://h/a", "https://h.evil/a")
    assert not same("http://h:8080/a", "https://h/a")
