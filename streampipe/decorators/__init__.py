"""Decorators for the functions and stages that users write: where pipelines fail, and where time goes."""

from streampipe.decorators.cached import cached
from streampipe.decorators.inference import inference
from streampipe.decorators.logged import logged
from streampipe.decorators.on_error import on_error
from streampipe.decorators.retry import retry
from streampipe.decorators.skip import SKIP
from streampipe.decorators.timed import timed

__all__ = ["SKIP", "cached", "inference", "logged", "on_error", "retry", "timed"]
