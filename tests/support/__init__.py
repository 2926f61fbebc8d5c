"""What several tests need: servers, processes, waiting."""
