"""Bytes to arrays and back. numpy only, so that the client, which imports no more than it sends, stays light."""
