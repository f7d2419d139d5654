"""The torch DataLoader that accounts for what it delivers: tasks to workers one way, batches and marks the other."""

from streampipe.loader.loader import Loader

__all__ = ["Loader"]
