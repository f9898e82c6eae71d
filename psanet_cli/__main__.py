"""`python -m psanet_cli` is the `psanet` command."""

from psanet_cli import main

main()
