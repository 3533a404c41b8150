"""Speed: `python -m big_crop.bench pipeline|step ...`; each has `--help`."""
