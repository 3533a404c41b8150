"""Output for people: plots, pictures of a run, tables."""
