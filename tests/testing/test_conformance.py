"""``check_store`` finds each promise that a store breaks, and names it."""

import threading
import time

import pytest

import streampipe as sp
from streampipe.testing import check_store

DATA = bytes(range(256)) * 20


class Good(sp.Store):
    """A store that keeps its promises; each of those below breaks one."""

    streams = True
    pins = True

    def __init__(self):
        self.data, self.version = DATA, "1"

    def pin(self, url):
        if url != "x://a":
            raise FileNotFoundError(url)
        return sp.Pin(len(self.data), self.version)

    def get(self, url, start, end, pin):
        found = self.pin(url)
        if pin.differs(found):
            raise sp.ShardChanged("it changed")
        return sp.Answer(start, found, iter([self.data[start:end]]))


class Nameless(Good):
    def credentials(self, url):
        return ""


class WrongSize(Good):
    def pin(self, url):
        return super().pin(url)._replace(size=7)


class Restless(Good):
    def pin(self, url):
        self.version += "1"
        return super().pin(url)


class Silent(Good):
    def get(self, url, start, end, pin):
        return super().get(url, start, end, pin)._replace(pin=sp.Pin())


class OneTooFar(Good):
    def get(self, url, start, end, pin):
        return super().get(url, start + 1, end and end + 1, pin)._replace(start=start)


class IgnoresRanges(Good):
    def get(self, url, start, end, pin):
        return super().get(url, 0, None, pin)


class TooMuch(Good):
    def get(self, url, start, end, pin):
        return super().get(url, start, end and end + 5, pin)


class Forgetful(Good):
    def renew(self):
        self.data = DATA[::-1]


class Elsewhere(Good):
    def pin(self, url):
        return sp.Pin(len(self.data), self.version)


class Odd(Good):
    def pin(self, url):
        if url != "x://a":
            raise PermissionError(url)
        return super().pin(url)


class Mixing(Good):
    def get(self, url, start, end, pin):
        return sp.Answer(start, self.pin(url), iter([self.data[start:end]]))


class OneAtATime(Good):
    """Remembers in itself what it was asked for."""

    def get(self, url, start, end, pin):
        self.asked = start, end
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.05)
        return super().get(url, *self.asked, pin)._replace(start=start)


def check(kind):
    store = kind()

    def replace(data):
        store.data, store.version = data, "2"

    check_store(lambda: store, "x://a", DATA, missing="x://b", replace=replace)


def test_a_good_store_passes():
    check(Good)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (Nameless, "does not say with which kind"),
        (WrongSize, "says 7 bytes, the object has 5120"),
        (Restless, "an untouched object changed"),
        (Silent, "pins is True, but an answer says None bytes"),
        (OneTooFar, "byte 0 of them is wrong|did not come"),
        (IgnoresRanges, "an answer says that it begins at byte 0|ranges is True, but it was ignored|more came"),
        (TooMuch, "more came than was asked for"),
        (Forgetful, "after renew"),
        (Elsewhere, "raises nothing"),
        (Odd, "taken for AccessDenied; raise FileNotFoundError"),
        (Mixing, "a replaced object raises nothing|bytes of another version"),
        (OneAtATime, "not for several threads"),
    ],
)
def test_each_broken_promise_is_named(kind, says):
    with pytest.raises(AssertionError, match=says):
        check(kind)


def test_a_store_that_lists_wrongly_is_found():
    class Lists(Good):
        written = {}  # noqa: RUF012

        def glob(self, pattern):
            return []

        def is_directory(self, url):
            return True

        def write(self, url, data):
            self.written[url] = data

        def upload(self, path, url):
            pass

        def pin(self, url):
            return sp.Pin(len(self.written[url]), "1") if url in self.written else super().pin(url)

        def get(self, url, start, end, pin):
            self.data = self.written.get(url, DATA)
            return super().get(url, start, end, pin)

    with pytest.raises(AssertionError, match=r"glob\(\) gives \[\]"):
        check_store(Lists, "x://a", DATA, folder="x://folder")
    with pytest.raises(AssertionError, match="it has not all of glob"):
        check_store(Good, "x://a", DATA, folder="x://folder")
    with pytest.raises(ValueError, match="1,000 bytes or more"):
        check_store(Good, "x://a", b"short")
