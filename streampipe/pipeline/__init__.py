"""The chain of stages behind a source, as a torch dataset.

``chain`` stages one behind the other · ``passes`` what the planner takes out of a chain · ``mix`` several pipelines as
one · ``progress``, ``epochs`` where a pass stands · ``explain`` what will happen.
"""

from streampipe.pipeline.pipeline import Pipeline

__all__ = ["Pipeline"]
