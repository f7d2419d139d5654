"""``completion``: scripts that complete what there is."""

import shutil
import subprocess

import pytest

from streampipe.cli import COMMANDS, main

shtab = pytest.importorskip("shtab")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_a_script_with_all_commands(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS)
    assert "missing" in script  # an option of one of them
    if shutil.which(shell):
        subprocess.run([shell, "-n", "/dev/stdin"], input=script, text=True, check=True, timeout=60)


def test_bash_completes_commands_options_and_values(capsys):
    main(["completion", "bash"])
    script = capsys.readouterr().out

    def completed(*words):
        line = " ".join(f"'{word}'" for word in words)
        ask = (
            f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _shtab_streampipe; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
        command = ["bash", "--norc", "-c", f"{script}\n{ask}"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()

    assert completed("streampipe", "in") == ["index", "info"]
    assert completed("streampipe", "select", "--mis") == ["--missing"]
    assert completed("streampipe", "select", "--missing", "") == ["drop", "keep", "error"]
