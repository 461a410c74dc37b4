"""Benchmarks of exported models; ``python -m benchmarks.export`` lists them."""
