"""What a cache of conditions takes and costs to read: latents and text embeddings of the shapes that Flux.2 has.

python benchmarks/conditions.py --count 24

A sample has latents (32 x 128 x 128, float16) and two captions of at most 512 tokens (15,360 numbers each, float16);
their lengths are drawn (log-normal: medians 70 and 14 tokens). Values are normal, in channels of very unequal size, one
in a hundred 30 times larger, as those of text encoders are. Beside it: the same in ``.npz``, padded to 512 tokens as
trainers store it, and trimmed. Times are processor time of one thread. How many bytes 100,000 samples take follows from
the lengths.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch

import streampipe as sp

TOKENS, WIDTH, LATENTS = 512, 15_360, (32, 128, 128)
MEDIANS = (70, 14)
ALL = 100_000


def lengths(count: int) -> np.ndarray:
    """Tokens of each caption of each sample."""
    rng = np.random.default_rng(0)
    drawn = np.exp(rng.normal(np.log(MEDIANS), 0.5, (count, len(MEDIANS))))
    return drawn.round().clip(1, TOKENS).astype(int)


def samples(count: int, kind: str) -> Iterator[dict[str, object]]:
    """Samples as they are given to ``write``."""
    channels = torch.exp(torch.randn(WIDTH, generator=torch.Generator().manual_seed(1)))
    channels[::100] *= 30
    for i, tokens in enumerate(lengths(count)):
        seeded = torch.Generator().manual_seed(i)
        latents = torch.randn(LATENTS, generator=seeded).half()
        embeds = torch.zeros(len(tokens), TOKENS, WIDTH, dtype=torch.float16)
        for row, n in zip(embeds, tokens, strict=True):
            row[:n] = torch.randn(n, WIDTH, generator=seeded) * channels
        mask = torch.arange(TOKENS) < torch.tensor(tokens)[:, None]
        sample: dict[str, object] = {"__key__": f"{i:06d}"}
        if kind in ("q8", "exact"):
            texts = sp.Conditioning([f"caption {i}", "short"], mask=mask, embeds=embeds)
            end = ".q8" if kind == "q8" else ""
            yield {**sample, f"latents{end}": latents, f"text{end}": texts}
        else:
            each = [e.numpy() if kind == "npz" else e[:n].numpy() for e, n in zip(embeds, tokens, strict=True)]
            yield {**sample, "latents.npz": {"x": latents.numpy()}, "text.npz": {str(j): x for j, x in enumerate(each)}}


def pick(sample: dict) -> None:
    """What training takes of a sample: its latents, and one caption."""
    text = next(value for name, value in sample.items() if name.startswith("text"))
    _ = text[0]["embeds"] if isinstance(text, sp.Conditioning) else text["0"]


def seconds(run: Callable[[], object], times: int = 3) -> float:
    """Processor time, the least of three."""
    spent = []
    for _ in range(times):
        start = time.process_time()
        run()
        spent.append(time.process_time() - start)
    return min(spent)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=24)
    count = parser.parse_args().count
    torch.set_num_threads(1)
    padded = 2 * (np.prod(LATENTS) + len(MEDIANS) * TOKENS * WIDTH)
    for kind in ("q8", "exact", "npz", "npz trimmed"):
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            summary = sp.from_iterable(partial(samples, count, kind)).write(f"{folder}/{{:05d}}.tar", progress=False)
            wrote = time.process_time() - start
            read = seconds(lambda folder=folder: [pick(each) for each in sp.stream(folder, tier="sequential").decode()])
            share = summary.bytes / count / padded
            print(f"{kind}: {summary.bytes / count / 1e6:.2f} MB a sample, {share:.1%} of padded float16; ", end="")
            print(f"read {1e3 * read / count:.1f} ms, made and written {1e3 * wrote / count:.0f} ms")
            for name, cost in summary.costs.items():
                print(f"  {name}: {cost}")
    for captions in (1, 2):
        mean = lengths(ALL)[:, :captions].sum(1).mean()
        ours = 33 / 32 * (np.prod(LATENTS) + mean * WIDTH)
        whole = 2 * (np.prod(LATENTS) + captions * TOKENS * WIDTH)
        text = f"{ours * ALL / 1e9:.0f} GB in place of {whole * ALL / 1e9:.0f}, {ours / whole:.1%}"
        print(f"{ALL} samples of {captions} captions, {mean:.0f} tokens on average: {text}")


if __name__ == "__main__":
    main()
