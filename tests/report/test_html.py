"""Pages in which data stay data."""

import base64
import hashlib
import json
import re

import pytest

from streampipe.report.html import as_data, filled

HOSTILE = ["</script>", "<!--<script>", "</SCRIPT x>", "\u2028", "&lt;", '"', "\ud800", "]]>"]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_can_end_the_data(text):
    shown = as_data({text: [text]})
    assert not set("<>&\u2028\u2029") & set(shown)
    assert shown.isascii()
    assert json.loads(shown) == {text: [text]}


def test_what_json_has_no_word_for_is_null():
    assert as_data({"a": [float("nan"), float("inf"), 1.5]}) == '{"a":[null,null,1.5]}'


def test_only_the_script_of_the_template_may_run_and_nothing_is_loaded():
    page = filled("streampipe.views", "gallery.html", {"title": 'id="data">DATA<', "cards": []})
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    script = page.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert page.count("<script") == 2
