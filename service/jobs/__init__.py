"""Work that outlives its request. Knows nothing of torch, or of what the work is."""
