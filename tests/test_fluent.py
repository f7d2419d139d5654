"""A method's signature is its stage's; what is misspelt is found by a type checker, and at run time."""

import inspect
import subprocess
import sys

import pytest

import streampipe as sp
from streampipe import stages
from streampipe.stages.stage import StageDefinition

DEFINITIONS = {name: each for name in stages.__all__ if isinstance(each := getattr(stages, name), StageDefinition)}
HIDDEN = ("beside", "position", "run")  # what the pipeline fills in
TAKEN_OTHERWISE = {  # by the method: what is handed to the stage is made of it
    "select": {"fields": "VAR_POSITIONAL"},
    "collect": {"fields": "VAR_POSITIONAL"},
    "drop": {"fields": "VAR_POSITIONAL"},
    "rename": {"names": "VAR_KEYWORD"},
    "assign": {"fields": "VAR_KEYWORD"},
    "default": {"fields": "VAR_KEYWORD"},
    "bucket": {"buckets": "POSITIONAL_OR_KEYWORD"},
    "where": {
        "condition": "POSITIONAL_OR_KEYWORD",
        "missing": "POSITIONAL_OR_KEYWORD",
        "facts": "KEYWORD_ONLY",
        "on": "KEYWORD_ONLY",
    },
}


def parameters_of(function):
    _, *others = inspect.signature(function).parameters.values()  # the pipeline, or the samples
    return [each for each in others if each.name not in HIDDEN]


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_methods_signature_is_its_stages(name):
    mine, theirs = parameters_of(getattr(sp.Pipeline, name)), parameters_of(DEFINITIONS[name].function)
    otherwise = TAKEN_OTHERWISE.get(name, {})
    assert [each.name for each in mine if each.name not in otherwise] == [
        each.name for each in theirs if each.name not in otherwise
    ]
    for method, stage in zip(mine, theirs, strict=False):
        if method.name in otherwise:
            assert method.kind.name == otherwise[method.name]
        else:
            assert (method.kind, method.default, method.annotation) == (stage.kind, stage.default, stage.annotation)


def test_what_is_said_again_changes_nothing():
    pipe = sp.from_iterable([])
    assert repr(pipe.decode(16, flip=0.0, crop="center").batch(4, tail="short")) == repr(pipe.decode(16).batch(4))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: p.decode(cropp="random"), r"decode: .*'cropp'; did you mean crop=\?"),
        (lambda p: p.caption(drop_out=0.1), r"caption: .*'drop_out'; did you mean dropout=\?"),
        (lambda p: p.batch(4, drop_last=True), "batch: .*'drop_last'; it is tail='drop' now"),
        (lambda p: p.bucket("sdxl", leftover="merge"), "bucket: .*'leftover'; it is tail= now"),
        (lambda p: p.caption(missing="empty"), "no longer 'empty': say 'keep'"),
        (lambda p: p.take(), "take: missing a required argument: 'n'"),
        (lambda p: p.take(1, 2), "take: too many positional arguments"),
        (lambda p: sp.retry(wait=0), "retry: .*'wait'; it is first_wait= now"),
    ],
)
def test_what_is_misspelt_or_called_otherwise_now_is_answered_with_the_right_word(call, words):
    with pytest.raises(sp.ConfigError, match=words):
        call(sp.from_iterable([]))


WRONG = """
import streampipe as sp
from collections.abc import Iterable, Iterator

@sp.stage(rows="each")
def scale(samples: Iterable[dict[str, float]], factor: float = 2.0, *, run: sp.Run = sp.Run()) -> Iterator[object]:
    yield from samples

@sp.stage
def bare(samples: Iterable[int], step: int) -> Iterator[int]:
    yield from samples

pipe = sp.stream("x")
pipe.apply(scale(factor=2.0)).apply(scale).apply(bare(step=2)).apply(sp.timed(scale)(factor=3))
pipe.decode(512, crop="random").caption(dropout=0.1).join("a.json", on="id").fit(3).batch(4, tail="drop").drop("txt")
pipe.decode(cropp="random")  # wrong
pipe.decode(flip="often")  # wrong
pipe.caption(drop_out=0.1)  # wrong
pipe.join("a.json", colums="x")  # wrong
pipe.fit(512, flipp=0.5)  # wrong
pipe.batch(4, drop_last=True)  # wrong
pipe.apply(scale(faktor=2.0))  # wrong
pipe.apply(scale(factor="much"))  # wrong
pipe.apply(bare(stepp=1))  # wrong

list(bare([1], step=3))
"""


def test_a_type_checker_finds_what_is_misspelt(tmp_path):
    file = tmp_path / "wrong.py"
    file.write_text(WRONG)
    options = ["--strict", "--follow-imports=silent", "--cache-dir", ".mypy_cache", "--python-version", "3.10"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(file)], capture_output=True, text=True, check=False
    )
    found = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    assert found == {i for i, line in enumerate(WRONG.splitlines(), 1) if "# wrong" in line}, done.stdout + done.stderr
