"""Services of a run: devices, hosts, checkpoints, records, progress."""
