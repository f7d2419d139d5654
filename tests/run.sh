#!/usr/bin/env bash
# Lint, type check and test streampipe. Sets up a virtual environment by itself. Arguments go to pytest.
source "$(dirname "$0")/../.ci/environment" ".[test]"
ruff check .
ruff format --check .
mypy
python -m pytest -q "$@"
