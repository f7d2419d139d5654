#!/usr/bin/env bash
# Lint, type check and test streampipe. Sets up a virtual environment by itself. Arguments go to pytest.
source "$(dirname "$0")/../.ci/environment" ".[test]"
ruff check .
ruff format --check .
mypy
# two processes, a file of tests in one of them: on two cores this halves the time
python -m pytest -q -n 2 --dist loadfile "$@"
