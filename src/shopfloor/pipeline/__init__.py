"""Runs and supervises sources, processors and sinks round the journal."""

from shopfloor.pipeline.live import Live
from shopfloor.pipeline.pipeline import Pipeline
from shopfloor.pipeline.status import ComponentStatus, State

__all__ = ["ComponentStatus", "Live", "Pipeline", "State"]
