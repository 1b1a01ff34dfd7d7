"""Wire formats and clients that sources and sinks share."""
