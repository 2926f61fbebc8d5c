"""What to check: targets from the configuration and the neighbours."""
