"""From places to samples: of a plan, ahead of need (``reader``), or of whole shards, front to back (``shards``).

Read first: ``protocol``, what an engine asks of a source, and ``reader``.

Of a plan: ``indexed`` a shard and its index · ``sliced`` a batch of its samples, column by column · ``prefetch`` what
is asked for, and when · ``wanted``, ``pace`` which bytes, and how many before their turn · ``remote`` the bytes on
their way · ``forward`` where nobody knows where a sample begins.

Sources: ``formats`` which one a name stands for · ``shards`` what all of them have in common · ``tars``, ``members`` ·
``folder`` · ``parquet``, ``pieces``, ``rows``, ``arrow`` · ``chunks``, ``mds``, ``litdata`` · ``numbered``, ``finder``
how others are found by number · ``iterable``.
"""
