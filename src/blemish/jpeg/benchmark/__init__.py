"""Codecs under test, baselines and Bjøntegaard rates."""
