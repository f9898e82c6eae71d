"""Trained weights: where they come from, what their files hold, and what is known about them."""
