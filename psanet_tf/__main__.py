"""`python -m psanet_tf` is the `psanet` command."""

from psanet_cli import main

main()
