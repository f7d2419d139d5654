"""Train a small diffusion model on the shards that encode_latents.py wrote: no image is decoded, no VAE is loaded.

    python examples/encode_latents.py && python examples/train_from_latents.py quickstart-out/latents

A latent is drawn anew in every epoch, z = mean + std * eps, with eps from the pipeline's own randomness: a function of
seed, epoch and key, so it is the same with any number of workers and after a resume.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import tiny_models
import torch
from torch.nn.functional import mse_loss

import streampipe as sp


def draw(sample: dict, rng: np.random.Generator) -> dict:
    """A latent from its mean and standard deviation, scaled as the UNet wants it; and what it is conditioned on."""
    mean, std = sample["latents.npy"].astype(np.float32)
    z = mean + std * rng.standard_normal(mean.shape, dtype=np.float32)
    meta = sample["json"]
    return {
        "latents": torch.from_numpy((z - meta["shift_factor"]) * meta["scaling_factor"]),
        "text": torch.from_numpy(sample["text_embeds.npy"]).float(),
        "pooled": torch.from_numpy(sample["pooled.npy"]).float(),
        "time_ids": torch.tensor([*meta["original_size"], *meta["crop_top_left"], *meta["target_size"]]),
    }


def pipeline(shards: str, batch: int = 8, buckets: Any = None, **options: Any) -> sp.Pipeline:
    """Batches for training: latents of one specification only, in the buckets that they were encoded in."""
    first = next(iter(sp.stream(shards).decode()))
    spec = first["json"]["spec"]
    pipe = sp.stream(shards, shuffle=True, **options).where(f"spec == '{spec}'")
    return (pipe.bucket(buckets) if buckets else pipe).decode().map(draw).batch(batch)


def loss_of(unet: Any, scheduler: Any, batch: dict) -> torch.Tensor:
    """The denoising loss of Stable Diffusion XL: predict the noise that was added."""
    latents = batch["latents"]
    noise = torch.randn_like(latents)
    steps = torch.randint(0, scheduler.config.num_train_timesteps, (len(latents),))
    condition = {"text_embeds": batch["pooled"], "time_ids": batch["time_ids"]}
    noisy = scheduler.add_noise(latents, noise, steps)
    return mse_loss(unet(noisy, steps, batch["text"], added_cond_kwargs=condition).sample, noise)


def main(given: list[str] | None = None) -> list[float]:
    """Train; the mean loss of each epoch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards")
    parser.add_argument("--buckets", help="the name that encode_latents.py was given")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args(given)
    torch.manual_seed(0)
    unet, scheduler = tiny_models.unet(micro_conditioning=True).train(), tiny_models.scheduler()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=2e-3)
    loader = pipeline(options.shards, buckets=options.buckets).loader(num_workers=options.workers)
    means = []
    for epoch in range(options.epochs):
        losses = []
        for batch in loader:
            loss = loss_of(unet, scheduler, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        means.append(sum(losses) / len(losses))
        print(f"epoch {epoch}: loss {means[-1]:.3f}")
    return means


if __name__ == "__main__":
    main()
