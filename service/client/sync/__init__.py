"""The client for plain code: `python -m tools.twins` writes it from its twin in `service.client.aio`."""
