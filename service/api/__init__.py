"""HTTP, and the only room with an event loop."""
