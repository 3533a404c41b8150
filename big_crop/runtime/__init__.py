"""What keeps a run going: devices, hosts, checkpoints, records, progress."""
