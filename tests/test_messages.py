"""What a new user gets wrong is answered with what was meant: where the pipeline is made, and in one sentence."""

import ast
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import streampipe as sp
from tests.data import write_photos


def yields(sample):
    yield sample


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("shards")
    write_photos(found, [4])
    return str(found)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: p.decode(512.0), "decode: size is an edge, .* not 512.0"),
        (lambda p: p.decode("pil"), r"size is .* not 'pil'; images of PIL or numpy are decode\(output='pil'\)"),
        (
            lambda p: p.decode(64, crop="centre"),
            "crop is one of 'center', 'random', not 'centre'; did you mean 'center'",
        ),
        (lambda p: p.select(["jpg", "txt"]), r"write select\('jpg', 'txt'\)"),
        (lambda p: p.select(len), r"filter\(fn\) keeps the samples"),
        (lambda p: p.batch("4"), "batch: size is a whole number, 1 or more, not '4'"),
        (lambda p: p.batch(4, collate_fn=list), r"unexpected keyword argument 'collate_fn'; here it is collate="),
        (lambda p: p.batch(4, partial=False), r"'partial'; here it is tail="),
        (lambda p: p.batch(4, pad={"n": 0}, collate=list), "pad= or collate=, not both"),
        (lambda p: p.rename({"image": "jpg"}), r"give them by name, as in rename\(\*\*names\)"),
        (lambda p: p.assign({"a": 1}), r"assign\(\*\*names\)"),
        (lambda p: p.default({"a": 1}), r"default\(\*\*names\)"),
        (lambda p: p.map(len, handler=print), "'handler'; here it is sp.stream"),
        (lambda p: p.bucket("sdlx"), "no buckets 'sdlx'.*; did you mean 'sdxl'"),
        (lambda p: p.bucket(5), "buckets are a name .* not 5"),
        (lambda p: p.write(5), "pattern is a text"),
        (lambda p: p.of_rank("a", 2), "rank and world_size are whole numbers"),
        (lambda p: p.batch(2).loader("2"), "num_workers is a whole number"),
        (lambda p: p.batch(2).loader(tail="dorp"), "tail is one of .*; did you mean 'drop'"),
        (lambda p: p.batch(2).loader(persistent_workers=True), "needs num_workers=1 or more"),
        (lambda p: p.batch(2).loader().set_epoch("a"), "epoch is a whole number"),
        (lambda p: sp.mix(p), r"mix takes a list of pipelines, as in mix\(\[a, b\]\)"),
        (lambda p: sp.mix([p, p], probs=[1, 2]), "'probs'; here it is weights="),
        (lambda p: p.decode(64, flip=True), "flip=True would mirror every sample; flip=0.5"),
        (lambda p: p.decode((64,)), r"size is an edge, \(height, width\).* not \(64,\)"),
        (lambda p: p.decode(64, "random"), "too many positional arguments; options go by name, as in crop=..."),
        (lambda p: p.caption(dropout=True), "dropout is a probability from 0 to 1, not True"),
        (lambda p: p.decode(64).bucket("sdxl"), r"bucket stands behind decode\(size=64\).*: put bucket in front of it"),
        (lambda p: p.bucket("sdxl").decode(64), "has a size of its own, but behind bucket"),
        (lambda p: p.bucket("sdxl").bucket("sd15"), "bucket and bucket both decide"),
        (lambda p: p.bucket("SDXL"), "did you mean 'sdxl'"),
        (lambda p: p.map(yields), r"map: yields yields, .*flat_map\(fn\)"),
        (lambda p: p.map(lambda: 1), "map: <lambda> is given the sample, and cannot take it: too many positional"),
        (lambda p: p.map(lambda a, b: 1, "txt"), "is given the field 'txt', and cannot take it: missing a required"),
        (lambda p: p.filter("width > 3"), r"fn is a function, not 'width > 3'; where\('width >= 512'\) takes"),
        (lambda p: p.where(len), r"not builtin_function_or_method; filter\(fn\) takes a function"),
        (lambda p: p.filter(lambda: 1), "filter: <lambda> is given the sample, and cannot take it"),
        (
            lambda p: sp.inference(model=len)(yields),
            r"yields is given the module first.*write yields\(model, images\)",
        ),
        (lambda p: p.map(len, num_workers=2), r"'num_workers'; here it is loader\(num_workers=n\)"),
        (lambda p: p.map(len, batched=True), r"'batched'; here it is .batch\(n\) in front of map"),
        (lambda p: p.explain(0), "explain: world_size is a whole number, 1 or more, not 0"),
        (lambda p: p.batch(2).loader(fixed_epoch=3), "fixed_epoch is True or False, not 3"),
        (lambda p: sp.concat(p, p), r"give the pipelines as a list, as in concat\(\[a, b\]\)"),
        (lambda p: sp.mix([p, p], {0: [1, 1]}), r"weights by step are sp.Schedule"),
        (lambda p: sp.split(p, share="a"), "split: share is a number, not 'a'"),
        (lambda p: sp.replay("x", {}, 1), "replay takes a pipeline"),
        (lambda p: sp.replay(p, {}, "3"), "replay: step is a whole number, not '3'"),
        (lambda p: sp.preview(p, "x.jpg"), "x.jpg is no name of one: end it in .html"),
        (lambda p: sp.preview(p, 5), "preview: path is a text or a path, not 5"),
        (lambda p: sp.pack(p, "out"), "what a pipeline gives, pipe.write"),
        (lambda p: sp.pack("x", "out", max_samples="1"), "pack: max_samples is a whole number, not '1'"),
        (lambda p: sp.pack("x", "out", shuffle=1), "pack: shuffle is True or False, not 1"),
        (lambda p: sp.pack("x", "out", wher="a > 1"), "'wher'; did you mean where="),
        (lambda p: sp.pack("x"), "pack: missing a required argument: 'out'"),
        (lambda p: sp.index(None), "urls is a folder, a pattern or a list of shards, not None"),
        (lambda p: sp.index("x", out="y"), "'out'; here it is folder="),
        (lambda p: sp.verify([None]), "a shard's URL is a text or a path, not None"),
        (lambda p: sp.Parquet(5), "urls is a folder, a pattern or a list of shards, not 5"),
        (lambda p: sp.Folder(5), "Folder: folder is a text or a path, not 5"),
        (lambda p: sp.Lineage(5), "Lineage: folder is a text or a path, not 5"),
        (lambda p: sp.Cache(5), "Cache: folder is a text or a path, not 5"),
        (lambda p: sp.Cache("x", size=5), "'size'; here it is max_bytes="),
        (lambda p: sp.Network(retries=3), "'retries'; here it is patience="),
        (lambda p: sp.Limits(concatenated="yes"), "Limits: concatenated is True or False, not 'yes'"),
        (lambda p: sp.Limits(max_member_bytes=-1), "Limits: max_member_bytes is 0 or more, not -1"),
        (lambda p: sp.ErrorPolicy("skip", max_share="a"), "ErrorPolicy: max_share is a number, not 'a'"),
        (lambda p: sp.Tags(5), "Tags: separator is a text, not 5"),
        (lambda p: sp.Learn(5), "Learn: folder is a text or None, not 5"),
        (lambda p: sp.Buckets(step=0), "step, min and max of buckets are pixels, 1 or more, unlike step=0"),
        (lambda p: sp.Conditioning("a cat"), r"takes a list of captions, as in \['a cat'\]"),
        (lambda p: sp.Conditioning(["a"], t5=5), "one tensor for each of 1; 't5' has 5"),
        (lambda p: sp.retry(tries="a"), "retry: tries is a whole number, not 'a'"),
        (lambda p: sp.stage(5), "stage goes on a generator function, not on 5"),
        (lambda p: sp.merge_states(5), "takes the states of all ranks"),
        (lambda p: sp.Pipeline("x"), r"sp.stream\(...\) makes a pipeline"),
        (lambda p: sp.Loader("x"), "a loader is of a pipeline"),
        (lambda p: sp.from_iterable("abc"), "would give the letters of a text"),
        (lambda p: sp.from_iterable({"a": 1}), "would give the keys of a dict"),
        (lambda p: sp.split(3), r"split takes a pipeline, as sp.stream\(...\) gives it"),
    ],
)
def test_a_wrong_call_says_what_was_meant(folder, call, words):
    with pytest.raises(sp.ConfigError, match=words):
        call(sp.stream(folder))


@pytest.mark.parametrize(
    ("urls", "options", "words"),
    [
        (None, {}, r"urls is a folder, a pattern or a list of shards, not None; .* are sp.from_iterable\(samples\)$"),
        ([None], {}, r"a shard's URL is a text or a path, not None; .* are sp.from_iterable\(samples\)$"),
        ("typo/", {}, "there is nothing at 'typo/'"),
        (["typo"], {}, "there is nothing at 'typo'"),
        ("s4://b/x.tar", {}, "s4://b/x.tar: URLs of scheme 's4' are not read unless you allow them"),
        (["a.tar", "pipe:cat b.tar"], {}, "a command .* is never run"),
        ("s3://b/x.tar", {"network": sp.Network(stores={"s3": "boto"})}, "by 'boto', which is no store here"),
        ("", {"name": "en"}, "'name'; here it is config="),
        ("", {"streaming": True}, "'streaming'; here it is nothing: it always streams"),
        ("", {"seed": "a"}, "seed is a whole number, not 'a'"),
        ("", {"epochs": "2"}, "epochs is a whole number, 1 or more, or None"),
        ("", {"shuffle": "yes"}, "shuffle is a number of samples, True or False, not 'yes'"),
        ("", {"index": "nowhere"}, "index='nowhere' is no folder; streampipe index URL --out FOLDER makes one"),
        ("", {"tier": "plan"}, "tier is one of .*; did you mean 'planned'"),
        ("", {"cache": 5}, "cache is a folder, or an sp.Cache, or None, not 5"),
        ("", {"network": {"tries": 3}}, "network is an sp.Network"),
        ("", {"limits": 5}, "limits is an sp.Limits"),
        ("", {"storage_options": "x"}, "storage_options is a dict"),
        ("", {"opener": 5}, "opener is a function"),
        ("", {"shardshuffle": 100}, "'shardshuffle'; here it is shuffle=True"),
        ("", {"resampled": True}, "'resampled'; here it is epochs=None"),
        ("", {"handler": print}, "'handler'; here it is on_error='skip'"),
        ("", {"cache_dir": "x"}, "'cache_dir'; here it is cache="),
        ("", {"shufle": True}, r"'shufle'; did you mean shuffle=\?"),
    ],
)
def test_a_wrong_source_is_refused_at_once(folder, urls, options, words):
    with pytest.raises(sp.ConfigError, match=words):
        sp.stream(folder if urls == "" else urls, **options)


NAMES = (
    "to_tuple map_tuple map_dict batched unbatched listed with_epoch with_length resampled slice extract_keys "
    "rename_keys rsample compose associate mcached"
)


@pytest.mark.parametrize("name", NAMES.split())
def test_webdatasets_methods_say_what_they_are_called_here(folder, name):
    pipe = sp.stream(folder)
    assert not hasattr(pipe, name)
    with pytest.raises(AttributeError, match=f"a Pipeline has no '{name}': .*(here|streampipe)"):
        getattr(pipe, name)


def test_a_shard_that_is_not_there_is_missing_at_once(tmp_path):
    with pytest.raises(sp.ShardMissing, match="no.tar does not exist; check the URL"):
        sp.stream(tmp_path / "no.tar")
    assert len(sp.stream([tmp_path / "a.tar", tmp_path / "b.tar"]).source.shards) == 2, "of several, when they are read"


def test_names_of_other_libraries_and_misspelt_ones_say_what_was_meant():
    for name, words in (
        ("WebDataset", r"it is sp.stream\(...\) here"),
        ("StreamingDataset", "it is sp.stream"),
        ("load_dataset", "it is sp.stream"),
        ("DataLoader", r"\.loader\(\) here"),
        ("strem", "did you mean 'stream'"),
    ):
        with pytest.raises(AttributeError, match=f"streampipe has no '{name}'.*{words}"):
            getattr(sp, name)


def test_what_a_pipeline_cannot_do_as_a_list_or_a_sum_says_what_can(folder):
    pipe = sp.stream(folder)
    with pytest.raises(TypeError, match=r"next\(iter\(pipe\)\) is the first"):
        pipe[0]
    with pytest.raises(TypeError, match=r"sp.concat\(\[a, b\]\)"):
        pipe + pipe
    with pytest.raises(AttributeError, match="a Pipeline has no 'resize': it is decode"):
        pipe.resize(64)
    with pytest.raises(AttributeError, match="a Pipeline has no 'bside'$"):
        _ = pipe.bside  # not: did you mean '_beside'?


def test_a_misspelt_method_says_which_was_meant(folder):
    with pytest.raises(AttributeError, match="a Pipeline has no 'decoed'; did you mean 'decode'"):
        sp.stream(folder).decoed()


class Odd:
    """A value of a kind that nothing takes."""

    def __repr__(self):
        return "<odd>"


GIVEN = {"fn": len, "condition": "width>1", "keys": "txt", "size": 4, "buckets": "sdxl", "n": 1, "sidecar": "x.json"}
GIVEN |= {"fields": "jpg", "names": "jpg", "times": 2}
METHODS = "map flat_map where filter select drop rename shuffle decode caption join fit bucket batch take skip repeat"


def attempts(function, given):
    """Calls with one option of a wrong kind each: positional and named arguments."""
    parameters = [each for each in inspect.signature(function).parameters.values() if each.name not in ("self", "pipe")]
    for each in parameters:
        for odd in (Odd(), 1.5, "odd", [Odd()], -7):
            named = {p.name: given[p.name] for p in parameters if p.name in given and p.kind is p.POSITIONAL_OR_KEYWORD}
            if each.kind is each.VAR_POSITIONAL:
                yield (odd,), named
            elif each.kind is not each.VAR_KEYWORD:
                yield (), {**named, each.name: odd}


@pytest.mark.parametrize("name", METHODS.split())
def test_an_option_of_a_wrong_kind_is_taken_or_refused_in_words(folder, name):
    for args, named in attempts(getattr(sp.Pipeline, name), GIVEN):
        try:
            getattr(sp.stream(folder), name)(*args, **named)
        except sp.ConfigError:
            pass


@pytest.mark.parametrize("name", ["stream", "from_iterable", "mix", "concat", "split", "loader"])
def test_a_source_or_loader_given_a_wrong_kind_takes_or_refuses_it_in_words(folder, name):
    pipe = sp.stream(folder)
    given = {"stream": {"urls": folder}, "from_iterable": {"samples": [1]}, "split": {"pipe": pipe}}
    function = sp.Loader.__init__ if name == "loader" else getattr(sp, name)
    call = pipe.batch(2).loader if name == "loader" else function
    own = given.get(name, {"pipes": [pipe, pipe]} if name in ("mix", "concat") else {})
    for args, named in attempts(function, {}):
        try:
            call(*args, **{**own, **named})
        except sp.ConfigError:
            pass


def test_a_seed_of_numpy_is_the_number_that_it_is(folder):
    plain, numpys = (sp.stream(folder, shuffle=4, seed=seed) for seed in (3, np.int64(3)))
    assert [s["__key__"] for s in plain] == [s["__key__"] for s in numpys]


def texts(tree):
    """All texts of a module that are no docstrings: what is filled in is ``...``."""
    parts, alone = set(), {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts.update(map(id, node.values))
            yield "".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts | alone:
            yield node.value


def test_options_that_messages_recommend_are_there():
    public = [(name, getattr(sp, name)) for name in sp.__all__]
    public += [member for kind in (sp.Pipeline, sp.Loader) for member in inspect.getmembers(kind, inspect.isfunction)]
    options, any_name = {}, set()
    for name, called in public:
        if callable(called) and not name.startswith("_"):
            parameters = inspect.signature(called).parameters.values()
            options.setdefault(name, set()).update(each.name for each in parameters)
            if any(each.kind is each.VAR_KEYWORD and each.name != "unknown" for each in parameters):
                any_name.add(name)
    found, wrong = 0, []
    for path in Path(sp.__file__).parent.rglob("*.py"):
        for text in texts(ast.parse(path.read_text())):
            for name, given in re.findall(r"(?<!\w)(\w+)\(((?:[^()]|\([^()]*\))*)\)", text):
                for option in re.findall(r"(?<![\w.'\"])(\w+)=(?!=)", re.sub(r"\([^()]*\)", "", given)):
                    found += name in options
                    if name not in any_name and option not in options.get(name, {option}):
                        wrong.append(f"{path.name}: {name}({option}=)")
    assert found > 100
    assert wrong == []
