"""The documentation: pages written by hand, a reference that the service tells of itself, and what builds the site."""
