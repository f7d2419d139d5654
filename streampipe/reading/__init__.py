"""From places to samples: of a plan, ahead of need (``reader``), or of whole shards, front to back (``shards``).

``indexed`` a shard and its index · ``prefetch`` what is asked for, and when · ``remote`` the bytes on their way.
"""
