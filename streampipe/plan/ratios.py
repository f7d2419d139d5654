"""Aspect ratios of sizes, and how much of an image is cut away to bring it to another one's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def log_ratios(sizes: Sequence[tuple[int, ...]]) -> np.ndarray:
    """log(width / height) of each; that of a transpose is exactly the negative."""
    h, w = np.array(sizes, np.float64).T[:2]
    return np.asarray(np.log(w) - np.log(h))


def cut_away(ratios: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The share of an image with a log aspect ratio that is cut away when it is scaled to cover another one."""
    return np.asarray(-np.expm1(-np.abs(ratios - others)))


def cut_away_between(sizes: Sequence[tuple[int, ...]]) -> np.ndarray:
    """The share that is cut off bucket i (row) to bring it to bucket j (column)."""
    ratios = log_ratios(sizes)
    return cut_away(ratios[:, None], ratios[None, :])
