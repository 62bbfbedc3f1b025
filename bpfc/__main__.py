"""`python -m bpfc` is `bpfc`."""

from bpfc.cli import main

main()
