"""One attempt at a run on this machine, from the claim to the final record."""
