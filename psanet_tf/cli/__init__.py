"""The `psanet` command; each subcommand has a module of its own."""

from psanet_tf.cli.app import main

__all__ = ["main"]
