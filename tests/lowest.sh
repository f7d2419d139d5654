#!/usr/bin/env bash
# Tests with the lowest versions of all dependencies that pyproject.toml promises, in an environment of their own (.venv-lowest).
# Wants Python 3.10 to 3.12 (PYTHON=python3.10), which the lowest torch has wheels for. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv-lowest}
lowest() { # the versions of one list of pyproject.toml
    sed -n "/^$1 = \[/,/\]/p" pyproject.toml | grep -o '"[A-Za-z0-9_-]*>=[0-9.]*"' | tr -d '"' | sed 's/>=/==/'
}
if [ ! -f "$VENV/ready" ]; then
    "${PYTHON:-python3.10}" -m venv "$VENV"
    formats=$(for extra in zstd msgpack cbor safetensors completion rich prometheus; do lowest "$extra"; done)
    # shellcheck disable=SC2046,SC2086
    "$VENV/bin/python" -m pip install --quiet $(lowest dependencies) $formats pytest pytest-timeout hypothesis torchdata
    "$VENV/bin/python" -m pip install --quiet --no-deps -e .
    touch "$VENV/ready"
fi
# torch 2.4 and 2.5 warn of tensors in pickles by themselves
"$VENV/bin/python" -m pytest -q --continue-on-collection-errors -W ignore::FutureWarning "${@:-tests}"
