"""Which sample goes where, in integers, before a byte of a shard is read; no clock and no global state is looked at.

``order`` the seekable shuffle · ``cut`` draws to batches · ``rotation`` slots to lanes, lanes to readers · ``lanes``
global batches · ``planned`` a plan, and the state of a run · ``ask`` a question to all indexes · ``dataset`` shards
whose samples are counted · ``clips`` samples cut out of videos · ``deal`` whole shards, where samples are not counted ·
``streams`` lanes of shards that are read forward.

Batches of one size: ``shapes`` sets of sizes · ``ratios`` aspect ratios · ``buckets`` which size an image gets ·
``compound`` sizes of several images · ``sorter`` samples to buckets · ``spread``, ``groups``, ``leftovers``,
``batch_sizes`` the batches of an epoch · ``bucket_orders``, ``bucket_plan``, ``bucketed`` order, plan and dataset.

Packs of one cost: ``packing`` which costs share a pack · ``costs`` samples to classes · ``pack_plan``, ``packed`` plan
and dataset.

Mixtures: ``schedule``, ``course`` shares by step · ``mixed`` datasets as one · ``stepped`` the plan with a schedule ·
``batchwise`` the plan of whole batches.
"""
