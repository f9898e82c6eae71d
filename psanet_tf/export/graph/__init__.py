"""What an exported model does besides the network, as TensorFlow graphs: decoding, the protocols, attention maps."""
