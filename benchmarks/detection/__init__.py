"""Benchmark of the detector: its quality beside other methods, its parts, and its promises."""
