"""The environments of other libraries: one for each, because what they pin differs. Made once."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

PACKAGES = {
    "webdataset": ("webdataset", "webdataset"),
    "MosaicML": ("mosaicml-streaming==0.13.0", "streaming"),
    "LitData": ("litdata==0.2.76", "litdata"),
    "Energon": ("megatron-energon==7.4.1", "megatron.energon"),
    "Zephon": ("zephon==0.2.0", "zephon"),
    "LanceDB": ("lancedb==0.40.0", "lancedb.streaming"),
    "HF datasets": ("datasets", "datasets"),
    "SPDL": ("spdl==0.8.0", "spdl.io"),
    "Grain": ("grain==0.2.18", "grain"),
    "TurboLoader": ("turboloader==2.39.0", "turboloader"),
    "datago": ("datago==2026.10.1", "datago"),
}
"""What pip is asked for, and the module that says whether it is there."""


def interpreter(name: str, peers: Path | None) -> str:
    """The Python that has a library: this one where it is installed, else that of its environment below ``peers``,
    which is made if need be.

    Raises:
        LookupError: it cannot be had; the text says why, with the command that would install it.
    """
    package, module = PACKAGES[name]
    if _has(sys.executable, module):
        return sys.executable
    if peers is None:
        raise LookupError(f"not installed: `pip install {package}`, or `--peers FOLDER` for environments")
    folder = peers / package.partition("==")[0]
    python = folder / "bin" / "python"
    if not python.exists():
        _make(folder)
    if not _has(str(python), module):
        wanted = ["torch==" + _version_of_torch(), package]
        command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", *wanted]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
            raise LookupError(f"`pip install {package}` cannot be done: {said[-1]}")
    return str(python)


def _has(python: str, module: str) -> bool:
    """Found, not imported: that takes seconds; what is there and broken says so itself."""
    look = f"import sys, importlib.util as u; sys.exit(u.find_spec({module!r}) is None)"
    return not subprocess.run([python, "-c", look], capture_output=True, check=False).returncode


def _make(folder: Path) -> None:
    """It sees what is installed here, so all run with the same torch and codecs, unless a library pins others."""
    venv.create(folder, with_pip=False)
    (here,) = folder.glob("lib/python*/site-packages")
    (here / "above.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")


def _version_of_torch() -> str:
    import torch

    return torch.__version__.partition("+")[0]
