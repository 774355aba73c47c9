"""`python -m spikeshot`."""

from spikeshot.cli import main

main()
