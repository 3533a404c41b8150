"""The crop laws, measured: `python -m big_crop.measure`."""
