"""Inspection on the line: a server, sources and sinks, the history of decisions, and the page."""
