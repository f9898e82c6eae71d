"""The `psanet` command; each subcommand has a module of its own.

A package beside `psanet_tf`, whose import brings TensorFlow and Keras along: help and wrong arguments are answered at
once. So its modules import `psanet_tf` only inside the commands.
"""

from psanet_cli.app import main

__all__ = ["main"]
