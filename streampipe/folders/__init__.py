"""Folders of images: ``names`` which files are one sample, ``layouts`` and ``metadata`` where they lie and what tables
say of them, ``walk`` and ``listing`` all that a folder holds, ``files`` what is read of it.
"""

from streampipe.folders.listing import Listing, scan
from streampipe.folders.names import File, Item

__all__ = ["File", "Item", "Listing", "scan"]
