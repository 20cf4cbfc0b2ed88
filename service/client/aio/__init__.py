"""The client for asynchronous code, from which `python -m tools.twins` writes its twin in `service.client.sync`."""
