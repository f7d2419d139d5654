"""URL to bytes: every byte that streampipe reads comes through here. Nothing else knows fsspec or HTTP.

``location`` what a URL may be and how it is shown · ``address``, ``connections`` where a request may go · ``network``
the settings · ``failures`` what an error of a backend means · ``retry`` how long and when to try again · ``store`` what
a store is, and the registry · ``wire`` a request and its answer · ``http`` the store that speaks HTTP, for the
endpoints ``web``, ``s3``, ``gcs``, ``hub`` · ``rust``, ``stores`` the others · ``fetch`` exactly the bytes that were
asked for · ``forward`` whole objects, front to back, ahead of need · ``local`` files of this machine · ``cache`` shards
kept on it · ``source`` the door to all of it.
"""

from streampipe.source.cache import Cache
from streampipe.source.disk import planted
from streampipe.source.location import has_query, local_path, redact
from streampipe.source.network import Network
from streampipe.source.source import Source
from streampipe.source.store import Answer, Pin, Store, register_store
from streampipe.source.stores import Opener

__all__ = [
    "Answer",
    "Cache",
    "Network",
    "Opener",
    "Pin",
    "Source",
    "Store",
    "has_query",
    "local_path",
    "planted",
    "redact",
    "register_store",
]
