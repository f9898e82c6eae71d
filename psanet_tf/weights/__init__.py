"""Trained weights: files, formats, and what they know about themselves."""
