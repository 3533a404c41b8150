"""Saliency of trained models: `python -m big_crop.saliency`."""
