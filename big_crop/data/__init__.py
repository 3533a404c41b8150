"""Data: where examples come from, and the pipelines that read them."""
