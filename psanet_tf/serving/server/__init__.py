"""The embedded model server: TensorFlow Serving's protocols in a Python process."""
