"""URL to bytes: every byte that streampipe reads comes through here. Nothing else knows fsspec or HTTP.

``location`` what a URL may be and how it is shown · ``network`` the settings · ``failures`` what an error of a backend
means · ``retry`` how often and when to try again · ``http``, ``stores`` the backends · ``fetch`` exactly the bytes
that were asked for · ``forward`` whole objects, front to back, ahead of need · ``cache`` shards kept on this machine ·
``source`` the door to all of it.
"""

from streampipe.source.cache import Cache
from streampipe.source.disk import planted
from streampipe.source.location import has_query, local_path, redact
from streampipe.source.network import Network
from streampipe.source.source import Source
from streampipe.source.stores import Opener

__all__ = ["Cache", "Network", "Opener", "Source", "has_query", "local_path", "planted", "redact"]
