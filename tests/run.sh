#!/usr/bin/env bash
# Lint, type check and test streampipe. Sets up a virtual environment by itself. Arguments go to pytest.
source "$(dirname "$0")/../.ci/environment" ".[test,docs]"
ruff check .
ruff format --check .
mypy
# Hundreds of processes are started: none is to compile all of it anew, also where bytecode is not written on import.
python -m compileall -q -j 0 streampipe tests examples
# Two processes, a file of tests in one of them: on two cores this halves the time. The end of a process ends the run:
# xdist would put another in its place, and then wait for ever. The order of files is that of tests/conftest.py.
python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 "$@"
