"""The client of a model server."""
