"""Captions as pure functions: where they are found, and what is done to them."""

import json
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streampipe as sp
from streampipe.captions import Caption, Recipe, Tags, fill_wildcards, shuffled
from streampipe.values import Fields, texts_of

tag = st.text(st.characters(codec="utf-8", exclude_characters=",|{}", exclude_categories=("Z", "C")), min_size=1)
tag_lists = st.lists(tag, max_size=12)
seeds = st.integers(0, 1 << 32)


class NoRandom:
    """Fails where a random number is drawn."""

    def random(self):
        raise AssertionError("a random number was drawn")


@given(tag_lists, st.integers(0, 14), seeds)
def test_the_first_tags_stay_and_a_shuffle_is_a_permutation(tags, keep, seed):
    out = Tags(keep=keep, shuffle=True)(",".join(tags), random.Random(seed))
    found = [each for each in out.split(", ") if each]
    assert found[:keep] == tags[:keep]
    assert Counter(found) == Counter(tags)


@given(tag_lists, st.integers(0, 14), st.floats(0, 1), seeds)
def test_dropped_tags_leave_the_others_in_order_and_the_kept_ones_alone(tags, keep, drop, seed):
    out = Tags(keep=keep, drop=drop)(",".join(tags), random.Random(seed))
    found = [each for each in out.split(", ") if each]
    assert found[:keep] == tags[:keep]
    rest = iter(tags[keep:])
    assert all(each in rest for each in found[keep:])
    if drop == 0:
        assert found == tags
    if drop == 1:
        assert found == tags[:keep]


@given(st.lists(tag_lists, min_size=1, max_size=3), seeds)
def test_a_keep_separator_marks_what_stays_at_both_ends(parts, seed):
    out = Tags(keep=1, keep_separator="|||", shuffle=True)("|||".join(",".join(part) for part in parts), _rng(seed))
    found = [each for each in out.split(", ") if each]
    first, middle, last = parts if len(parts) == 3 else [*parts, []] if len(parts) == 2 else [parts[0][:1], *parts, []]
    if len(parts) == 1:
        middle = parts[0][1:]
    assert found[: len(first)] == first
    assert found[len(found) - len(last) :] == last
    assert Counter(found[len(first) : len(found) - len(last)]) == Counter(middle)
    assert "|||" not in out


@given(tag_lists, seeds)
def test_tag_operations_are_a_pure_function_of_caption_and_numbers(tags, seed):
    operations = Tags(keep=1, shuffle=True, drop=0.3, wildcard=True)
    caption = ",".join(tags) + "{a|b|c}"
    assert operations(caption, random.Random(seed)) == operations(caption, random.Random(seed))
    assert operations(caption, np.random.default_rng(seed)) == operations(caption, np.random.default_rng(seed))


def test_every_order_comes_about_as_often():
    rng = random.Random(0)
    seen = Counter(tuple(shuffled("abc", rng)) for _ in range(6000))
    assert len(seen) == 6
    assert all(850 < times < 1150 for times in seen.values())


def test_kohyas_order():
    # The wildcard comes before the split, the drop after the shuffle, the secondary separator last.
    tags = Tags(keep_separator="|||", wildcard=True, secondary_separator=";")
    assert tags("solo, {a, b} ||| {c;d|c;d}, e ||| {{end}}", _rng(1)) == "solo, a, b, c,d, e, {end}"
    assert fill_wildcards("{a|b} {{a|b}} {} {c}", _rng(1)) in ("a {a|b} {} c", "b {a|b} {} c")
    rng = random.Random(5)
    order = shuffled("abcdefgh", rng)
    kept = [each for each in order if rng.random() >= 0.5]
    assert Tags(shuffle=True, drop=0.5)("a,b,c,d,e,f,g,h", random.Random(5)) == ", ".join(kept)


def step_by_step(caption, tags, rng):
    """Row by row what sd-scripts does to a caption's tags; every draw is one number."""
    made, rest = "", caption.replace("{{", "<<").replace("}}", ">>")
    while "{" in rest and "}" in rest[rest.index("{") + 2 :]:
        before, _, rest = rest.partition("{")
        inside, _, rest = (rest[0] + rest[1:].partition("}")[0], "", rest[1:].partition("}")[2])
        options = inside.split("|")
        made += before + options[int(rng.random() * len(options))]
    whole = (made + rest).replace("<<", "{").replace(">>", "}").split("|||", 2)
    parts = [[tag.strip() for tag in part.split(",") if tag.strip()] for part in whole]
    if len(parts) == 1:
        parts = [parts[0][: tags.keep], parts[0][tags.keep :]]
    middle = parts[1]
    for i in range(len(middle) - 1, 0, -1):
        j = int(rng.random() * (i + 1))
        middle[i], middle[j] = middle[j], middle[i]
    middle = [tag for tag in middle if rng.random() >= tags.drop]
    return ", ".join(parts[0] + middle + (parts[2] if len(parts) > 2 else [])).replace(";", ",")


pieces = st.sampled_from(["a", "b b", ",", ", ", "|||", "{x|y|z}", "{{", "}}", "{one}", "c;d", " ", "{p, q|r}"])


@given(st.lists(pieces, max_size=12).map("".join), st.integers(0, 3), st.sampled_from([0.2, 0.7]), seeds)
def test_tag_operations_are_those_of_sd_scripts_step_by_step(caption, keep, drop, seed):
    tags = Tags(keep=keep, keep_separator="|||", shuffle=True, drop=drop, wildcard=True, secondary_separator=";")
    assert tags(caption, random.Random(seed)) == step_by_step(caption, tags, random.Random(seed))


def test_tags_that_do_nothing_only_tidy_up():
    assert Tags()("  a ,, b,", NoRandom()) == "a, b"
    assert Tags(separator=" ", join=" ")("1girl  red_hat", NoRandom()) == "1girl red_hat"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Tags(separator=""), "separator is a text"),
        (lambda: Tags(keep=-1), "keep is a number of tags"),
        (lambda: Tags(drop=1.5), "drop is a probability"),
        (lambda: Recipe(keys=()), "at least one"),
        (lambda: Recipe(keys=("a", "")), "at least one"),
        (lambda: Recipe(keys="a;b", weights=(1,)), "each of the 2 keys"),
        (lambda: Recipe(keys="a;b", weights=(1, -1)), "0 or more"),
        (lambda: Recipe(keys="a;b", weights=(0, 0)), "not all 0"),
        (lambda: Recipe(dropout=2), "dropout is a probability"),
        (lambda: Recipe(lines="last"), "lines is one of all, first, random"),
        (lambda: Recipe(tags="a"), r"tags is sp.Tags"),
        (lambda: Recipe(template="a photo"), "has no {caption}"),
    ],
)
def test_options_that_make_no_sense_are_refused(make, words):
    with pytest.raises(sp.ConfigError, match=words):
        make()


def test_tags_show_what_was_given():
    assert repr(Tags(keep=1, shuffle=True)) == "Tags(keep=1, shuffle=True)"


NESTED = {"caption": "one", "meta": {"long": "two", "a.b": "three"}, "all": ["x", "y"], "txt": "four", "none": None}
SAMPLE = {
    "__key__": "k",
    "txt": b"member\n",
    "json": json.dumps(NESTED).encode(),
    "syn.json": json.dumps({"text": ["s", "t"]}).encode(),
    "syn.txt": "caf\u00e9".encode("cp1252"),
    "bom.txt": b"\xef\xbb\xbfwith a mark",
    "score": 0.5,
}
KEYS = {
    "txt": "member\n",
    "caption": "one",
    "json.caption": "one",
    "json.txt": "four",
    "meta.long": "two",
    "json.meta.long": "two",
    "meta.a.b": "three",
    "all": ["x", "y"],
    "all.1": "y",
    "all.2": None,
    "syn.json.text": ["s", "t"],
    "syn.json.text.0": "s",
    "syn.txt": "caf\u00e9",
    "bom.txt": "with a mark",
    "score": 0.5,
    "__key__": "k",
    "none": None,
    "nothing": None,
    "txt.more": None,
}


@pytest.mark.parametrize("decoded", [False, True])
@pytest.mark.parametrize("key", KEYS)
def test_what_a_key_names(key, decoded):
    sample = SAMPLE
    if decoded:
        (sample,) = sp.from_iterable([SAMPLE]).decode()
        assert isinstance(sample["json"], dict)
    elif isinstance(SAMPLE.get("json"), bytes):
        sample = {name: memoryview(v) if isinstance(v, bytes) else v for name, v in SAMPLE.items()}
    assert Fields(sample).value(key) == KEYS[key]


def test_a_member_comes_before_a_value_of_the_json():
    sample = {"caption": b"member", "json": b'{"caption": "value"}'}
    assert [Recipe(keys=key)(sample, NoRandom()).text for key in ("caption", "json.caption")] == ["member", "value"]


def test_a_text_is_texts_without_blanks_around_and_nothing_else():
    assert texts_of(["a ", "", None, 3], "k") == ["a", "3"]
    assert texts_of(" \n", "k") == []
    for value, words in (({"a": 1}, "name one of its entries: k.a"), (True, "is no text but bool")):
        with pytest.raises(sp.DecodeError, match=words):
            texts_of(value, "k")


def test_halves_of_characters_are_replaced():
    texts = [r'{"txt": "a \ud83d"}', r'{"txt": "\ude00 b"}', r'{"txt": "\ud83d\ude00"}']
    found = [Recipe()({"json": text.encode()}, NoRandom()).text for text in texts]
    assert found == ["a \ufffd", "\ufffd b", "\U0001f600"]


def test_the_first_key_that_is_there_and_not_empty_is_taken():
    make = Recipe(keys=("a", "b", "c"))
    assert make({"b": "", "c": "three"}, NoRandom()) == Caption("three", False)
    assert make({"b": " "}, NoRandom()) == Caption("", False, True)
    assert make({"d": "four"}, NoRandom()) is None


def test_weights_count_among_captions_that_are_there():
    make = Recipe(keys=("a", "b", "c", "d"), weights=(3, 1, 0, 0))
    rng = random.Random(1)
    seen = Counter(make({"a": "a", "b": "b", "c": "c"}, rng).text for _ in range(4000))
    assert set(seen) == {"a", "b"}
    assert 2850 < seen["a"] < 3150
    assert make({"b": "b", "c": "c"}, rng).text == "b"
    assert make({"d": "d", "c": "c"}, rng).text == "c"
    assert make({"e": "e"}, rng) is None


def test_a_list_is_as_many_captions():
    make = Recipe(keys="all_captions")
    rng = random.Random(1)
    seen = Counter(make({"json": b'{"all_captions": ["a", "b", ""]}'}, rng).text for _ in range(1000))
    assert set(seen) == {"a", "b"}


def test_lines():
    sample = {"txt": b"one\n\n two \nthree"}
    assert Recipe()(sample, NoRandom()).text == "one\n\n two \nthree"
    assert Recipe(lines="first", suffix="!")(sample, NoRandom()).text == "one!"
    seen = {Recipe(lines="random")(sample, _rng(i)).text for i in range(30)}
    assert seen == {"one", "two", "three"}


def test_template_prefix_suffix_and_clean():
    sample = {"txt": "a CAT {b}", "cls": 3, "json": {"artist": "Me"}}
    make = Recipe(
        template="{{x}} {caption} by {artist} ({cls})", prefix="<", suffix=">", clean=lambda text: text.lower()
    )
    assert make(sample, NoRandom()).text == "<{x} a cat {b} by Me (3)>"
    assert Recipe(template="a photo of a {cls}")({"cls": "dog"}, NoRandom()).text == "a photo of a dog"
    assert Recipe(template="{caption} {gone}")(sample, NoRandom()) is None
    with pytest.raises(sp.DecodeError, match="clean returned NoneType"):
        Recipe(clean=lambda text: None)(sample, NoRandom())


@settings(max_examples=50)
@given(seeds)
def test_what_is_dropped_does_not_depend_on_the_other_options(seed):
    sample = {"a": "x, y, z", "b": ["1", "2"]}
    plain = Recipe(keys="a", dropout=0.5)(sample, random.Random(seed))
    rich = Recipe(keys="a;b", weights=(1, 2), dropout=0.5, tags=Tags(shuffle=True), prefix="p")
    assert rich(sample, random.Random(seed)).dropped == plain.dropped
    assert plain.text == ("" if plain.dropped else "x, y, z")


def _rng(seed):
    return random.Random(seed)
