"""Speed: `python -m big_crop.bench NAME ...`; each has `--help`."""
