"""Benchmarks of speed and memory: `python -m big_crop.bench NAME --help`."""
