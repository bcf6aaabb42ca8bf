"""What every training loop needs: named randomness, exact checkpoints, provenance."""
