"""The public API is what tests/api.txt says: who changes it sees so in the diff, and writes it into the CHANGELOG.

python -m tests.test_api > tests/api.txt      # after a change that was meant
"""

from __future__ import annotations

import enum
import inspect
import pickle
from pathlib import Path
from typing import Any

import streampipe as sp

SNAPSHOT = Path(__file__).parent / "api.txt"


def describe() -> str:
    """One line for each public name, and for each public method of a class: its parameters, without annotations."""
    return "\n".join(line for name in sorted(sp.__all__) for line in _lines(name, getattr(sp, name))) + "\n"


def _lines(name: str, thing: Any) -> list[str]:
    if not inspect.isclass(thing):
        return [f"{name}{_signature(thing)}" if callable(thing) else name]
    bases = ", ".join(base.__name__ for base in thing.__bases__ if base is not object and base.__name__[0] != "_")
    lines = [f"class {name}({bases})"]
    if issubclass(thing, (BaseException, enum.Enum)):
        return lines
    for attribute, value in sorted(vars(thing).items() if name != "Pipeline" else _of_pipeline().items()):
        if attribute.startswith("_") and attribute not in ("__init__", "__len__", "__iter__"):
            continue
        if callable(value) or isinstance(value, (classmethod, staticmethod)):
            function = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
            lines.append(f"  {name}.{attribute}{_signature(function)}")
        else:
            lines.append(f"  {name}.{attribute}")
    return lines


def _of_pipeline() -> dict[str, Any]:
    own = [each for each in reversed(sp.Pipeline.__mro__) if each.__module__.startswith("streampipe.")]
    return {name: value for each in own for name, value in vars(each).items()}


def _signature(function: Any) -> str:
    try:
        found = inspect.signature(function)
    except (TypeError, ValueError):
        return "(...)"
    plain = [each.replace(annotation=each.empty) for each in found.parameters.values() if each.name != "self"]
    return str(found.replace(parameters=plain, return_annotation=found.empty)).replace("\n", " ")


def test_the_public_api_is_as_it_was_written_down():
    assert describe() == SNAPSHOT.read_text(), "meant? python -m tests.test_api > tests/api.txt, and the CHANGELOG"


if __name__ == "__main__":
    print(describe(), end="")


def test_the_package_is_pickled_by_name_as_functions_of_main_are_sent_with_it():
    assert pickle.loads(pickle.dumps(sp)) is sp
