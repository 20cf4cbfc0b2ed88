"""Request and response bodies. Bounds and choices come from the rooms below; here they meet JSON."""
