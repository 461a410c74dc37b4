"""Benchmark of JPEG codecs: codecs under test, baselines, Bjøntegaard delta rates."""
