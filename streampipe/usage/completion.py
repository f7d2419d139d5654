"""The arguments of ``streampipe completion SHELL``."""

from __future__ import annotations

import argparse

HELP = "Print a script that completes commands, options, their values and file names in bash, zsh or fish."
EXAMPLES = """
  streampipe completion bash > ~/.local/share/bash-completion/completions/streampipe
  streampipe completion zsh > ~/.zfunc/_streampipe          # with fpath+=~/.zfunc before compinit in ~/.zshrc
  streampipe completion fish > ~/.config/fish/completions/streampipe.fish
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="which")
