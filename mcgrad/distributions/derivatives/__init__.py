"""How draws and distributions move with their parameters."""
