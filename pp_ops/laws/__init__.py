"""Crop laws."""
