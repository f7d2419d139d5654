"""What was trained on: which samples each step had, written as it happens and read again later."""

from streampipe.lineage.log import Log
from streampipe.lineage.read import Lineage

__all__ = ["Lineage", "Log"]
