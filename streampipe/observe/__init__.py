"""What a run is measured with: durations by size, what a stage does in a thread, and spans of time for a timeline."""

from streampipe.observe.histogram import Histogram
from streampipe.observe.tally import Flow, Slow, Stack, Tally
from streampipe.observe.trace import Span, Trace

__all__ = ["Flow", "Histogram", "Slow", "Span", "Stack", "Tally", "Trace"]
