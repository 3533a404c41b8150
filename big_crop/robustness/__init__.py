"""Robustness of trained models: `python -m big_crop.robustness`."""
