"""What is computed on a Ray cluster. Nothing here is imported unless it is asked for."""
