"""Answers that say their version each in another way, that say less than was asked for, or ignore what was asked."""

import pytest

import streampipe as sp
from streampipe.source import Source
from streampipe.source.ranges import Part
from streampipe.source.store import Pin
from streampipe.unwanted import Stop
from tests.source.conftest import DATA, QUICK, Scripted, bounded, ranged, whole

DATE = "Mon, 01 Jan 2024 00:00:00 GMT"


def first(sent):
    return sent.get("range", "bytes=0-").startswith("bytes=0-")


KINDS = {
    "weak and strong": lambda method, sent: {"ETag": 'W/"1"' if first(sent) else '"1"'},
    "no ETag with ranges": lambda method, sent: {} if "range" in sent else {"ETag": '"1"'},
    "no ETag for HEAD": lambda method, sent: {} if method == "HEAD" else {"ETag": '"1"'},
    "no ETag at first": lambda method, sent: {} if first(sent) else {"ETag": '"1"'},
    "without quotes": lambda method, sent: {"ETag": "abc"},
    "always weak": lambda method, sent: {"ETag": 'W/"1"'},
}


@pytest.mark.parametrize("kind", KINDS)
def test_one_version_said_in_several_ways_is_one_version(kind):
    def answer(method, path, sent):
        return ranged(DATA, sent, **{"Last-Modified": DATE, **KINDS[kind](method, sent)})

    with Scripted(answer) as server:
        assert bounded(whole, Source(network=QUICK), f"{server.at}/a.tar") == DATA
        source = Source(network=QUICK)
        source.size(f"{server.at}/a.tar")
        assert source.read(f"{server.at}/a.tar", 5, 9) == DATA[5:9]


def test_a_server_that_refuses_the_version_it_has_is_asked_without_a_condition():
    """Some answer 412 to any If-Match. What the next answer says of its version decides."""

    def answer(method, path, sent):
        return (412, {}, b"") if "if-match" in sent else ranged(DATA, sent, ETag='"1"')

    with Scripted(answer) as server:
        source = Source(network=QUICK)
        assert bounded(whole, source, f"{server.at}/a.tar") == DATA
        refused = sum("if-match" in sent for _, _, sent in server.asked)
        assert 1 <= refused <= 8  # those that were on the way together; none after that
        assert source.read(f"{server.at}/a.tar", 5, 9) == DATA[5:9]
        assert sum("if-match" in sent for _, _, sent in server.asked) == refused


def test_a_replaced_object_is_found_whether_or_not_conditions_are_obeyed():
    for obeys in (True, False):
        tags = iter(['"1"', '"1"'])

        def answer(method, path, sent, obeys=obeys, tags=tags):
            tag = next(tags, '"2"')
            if obeys and sent.get("if-match", tag) != tag:
                return 412, {}, b""
            return ranged(DATA, sent, ETag=tag)

        with Scripted(answer) as server, pytest.raises(sp.ShardChanged, match='version "1" became "2"'):
            bounded(whole, Source(network=QUICK), f"{server.at}/a.tar")


def test_a_replaced_object_is_found_by_its_date_alone():
    dates = iter([DATE])

    def answer(method, path, sent):
        return ranged(DATA, sent, **{"Last-Modified": next(dates, "Tue, 02 Jan 2024 00:00:00 GMT")})

    with Scripted(answer) as server, pytest.raises(sp.ShardChanged, match="the date Mon, 01 Jan"):
        bounded(whole, Source(network=QUICK), f"{server.at}/a.tar")


def test_an_answer_that_is_shorter_than_asked_for_goes_on_with_the_next():
    """A server may send less of a range than was asked for, and say so."""

    def answer(method, path, sent):
        status, headers, body = ranged(DATA, sent, ETag='"1"')
        start = int(headers.get("Content-Range", "bytes 0-").split()[1].split("-")[0])
        cut = body[:10_000]
        return status, {**headers, "Content-Range": f"bytes {start}-{start + len(cut) - 1}/{len(DATA)}"}, cut

    with Scripted(answer) as server:
        assert bounded(whole, Source(network=QUICK), f"{server.at}/a.tar") == DATA
        assert Source(network=QUICK).read(f"{server.at}/a.tar", 5, 90_000) == DATA[5:90_000]


LENGTHS = {
    "none": lambda length: {"Content-Length": None, "Connection": "close"},
    "fewer": lambda length: {"Content-Length": str(length - length // 3)},
    "more": lambda length: {"Content-Length": str(length + 100)},
}


@pytest.mark.parametrize("kind", LENGTHS)
def test_a_range_whose_length_is_not_said_or_is_another_is_read_to_the_end_of_the_range(kind):
    def answer(method, path, sent):
        status, headers, body = ranged(DATA, sent, ETag='"1"')
        return status, {**headers, **LENGTHS[kind](len(body))}, body

    with Scripted(answer) as server:
        url = f"{server.at}/a.tar"
        assert bounded(whole, Source(network=QUICK), url) == DATA
        source = Source(network=QUICK)
        came = source.ranges(url, Stop()).ask([Part(5, 90_000), Part(90_010, 200_000)])
        assert [bounded(came.part, n) for n in (0, 1)] == [DATA[5:90_000], DATA[90_010:200_000]]
        assert bounded(source.read, url, 7, 70_000) == DATA[7:70_000]


@pytest.mark.parametrize("says", ["bytes 7-16/700001", "bytes 5-20/700001", "bytes 5-4/700001", "bytes 4-9/*", ""])
def test_an_answer_of_another_range_gives_no_byte(says):
    wrong, source = Scripted(lambda *asked: (206, {"Content-Range": says}, DATA[:10])), Source(network=QUICK)
    with wrong as server, pytest.raises(sp.SourceError):
        bounded(source.read, f"{server.at}/a.tar", 5, 15)


def test_pins_compare_like_with_like():
    assert Pin(9, None, "Monday").differs(Pin(None, '"1"', None)) is None
    assert Pin(9, '"1"', "Monday").differs(Pin(9, '"1"', "Tuesday")) is None  # the version counts for more
    assert Pin(9).with_(Pin(8, '"1"', "Monday")) == Pin(9, '"1"', "Monday")
    assert Pin(1, 'W/"1"').mark == Pin(1, '"1"').mark == '"1"'
    assert Pin(1, None, "Monday").mark == "Monday"
