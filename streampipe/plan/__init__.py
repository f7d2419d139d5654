"""Which sample goes where, in integers, before a byte of a shard is read; no clock and no global state is looked at.

``order`` the seekable shuffle · ``cut`` draws to batches · ``rotation`` slots to lanes, lanes to readers · ``lanes``
global batches · ``planned`` a plan · ``state`` what is kept of a run · ``dataset`` shards whose samples are counted ·
``buckets``, ``spread``, ``groups``, ``bucketed`` batches of one aspect ratio · ``deal`` whole shards, where samples are
not counted · ``streams`` lanes of shards that are read forward.
"""
