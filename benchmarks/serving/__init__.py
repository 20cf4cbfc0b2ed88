"""What a user of the service waits for."""
