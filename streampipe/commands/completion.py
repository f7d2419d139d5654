"""``streampipe completion SHELL``: a script that completes commands, options and file names."""

from __future__ import annotations

import argparse

from streampipe.errors import ConfigError

_FILES = ("url", "urls", "folder", "out", "FILE")
_FOLDERS = ("FOLDER", "ROOT")


def run(given: argparse.Namespace) -> int:
    """Print it."""
    try:
        import shtab
    except ImportError:
        raise ConfigError(
            "streampipe completion needs shtab, once, to write the script: pip install 'streampipe[completion]'"
        ) from None
    whole: argparse.ArgumentParser = given.whole()
    _say_what_are_files(whole, {name: getattr(shtab, name) for name in ("FILE", "DIRECTORY")})
    print(shtab.complete(whole, given.shell))
    return 0


def _say_what_are_files(parser: argparse.ArgumentParser, kinds: dict[str, object]) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for line in action._choices_actions:  # a shell shows a line of each, not what --help says
                action.choices[line.dest].description = line.help
            for each in action.choices.values():
                _say_what_are_files(each, kinds)
        elif action.metavar in _FOLDERS:
            action.complete = kinds["DIRECTORY"]  # type: ignore[attr-defined]
        elif action.metavar in _FILES or (not action.option_strings and action.dest in _FILES):
            action.complete = kinds["FILE"]  # type: ignore[attr-defined]
