"""Runs and supervises sources, processors and sinks round the journal."""
