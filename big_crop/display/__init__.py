"""What is drawn and printed: plots, pictures of a run, tables."""
