"""PSANet: Point-wise Spatial Attention Network for Scene Parsing (ECCV 2018) in TensorFlow and Keras."""

__version__ = "0.1.0"
