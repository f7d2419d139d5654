#!/usr/bin/env bash
# The main job on a small set of images that it makes: folder, shards, stream, decode, shuffle, batch, DataLoader.
# Sets up a virtual environment by itself. Arguments go to quickstart.py.
source "$(dirname "$0")/../.ci/environment" "."
python examples/quickstart.py "$@"
