"""Evaluation and comparison of detectors on labelled data sets."""
