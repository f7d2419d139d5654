"""Folder to shards from Python: the same as ``streampipe pack FOLDER OUT``, then a look into what was written.

python examples/folder_to_shards.py FOLDER OUT
"""

from __future__ import annotations

import argparse

import streampipe as sp


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="images with .txt or .json files of the same name beside them")
    parser.add_argument("out", help="where the shards go")
    given = parser.parse_args()
    print(sp.pack(given.folder, given.out, max_bytes=500_000_000, shuffle=True, seed=0))
    for sample in sp.stream(given.out).take(3):
        fields = {name: f"{len(data)} bytes" for name, data in sample.items() if not name.startswith("__")}
        print(sample["__key__"], fields)


if __name__ == "__main__":
    main()
