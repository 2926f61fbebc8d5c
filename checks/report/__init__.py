"""What becomes of results: metrics and log lines."""
