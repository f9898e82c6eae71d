"""`python -m psanet_tf` is the `psanet` command."""

from psanet_tf.cli import main

main()
