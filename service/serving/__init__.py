"""Many requests, one forward."""
