"""The torch DataLoader that accounts for what it delivers: tasks to workers one way, batches and marks the other.

``loader`` its face · ``passes`` the iterator of one pass · ``options``, ``choose`` what it is told, and how many
threads and workers fit · ``feed`` tasks and batches on their way · ``making`` who makes them, ``ahead`` in threads ·
``handover`` tensors from worker to parent · ``recorder``, ``reports`` what is seen of it · ``watchers`` who is told ·
``callers`` trainers that ask for what would be wrong.
"""

from streampipe.loader.loader import Loader

__all__ = ["Loader"]
