"""The chain of stages behind a source, as a torch dataset.

``chain`` stages one behind the other · ``passes``, ``planner`` what of it is decided in integers · ``mix`` several
pipelines as one · ``progress``, ``epochs`` where a pass stands · ``explain`` what will happen.
"""

from streampipe.pipeline.pipeline import Pipeline

__all__ = ["Pipeline"]
