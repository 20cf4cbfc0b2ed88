"""Reach a Ray cluster, or say in a sentence why not."""

import logging
import os
import socket

import ray

from service.bounds import cut

CONNECT_SECONDS = 5.0


class NoCluster(Exception):
    """No Ray cluster answers; the text is one line."""


def connect(address: str | None) -> None:
    """Have Ray work on the cluster at an address; None is that of this machine, or else one of its own cores.

    Raises:
        NoCluster
    """
    # Who lost the connection from outside does not come back to it, so nothing need be kept for it in the cluster.
    os.environ.setdefault("RAY_CLIENT_RECONNECT_GRACE_PERIOD", "0")
    try:
        host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
        if colon:  # Ray itself would try for minutes
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
        _connect(address)
    except Exception as error:  # of many kinds
        why = cut(str(error).partition("\n")[0], 200)
        raise NoCluster(f"no Ray cluster answers at {address or 'this machine'}: {why}") from None


def _connect(address: str | None) -> None:
    try:
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
    except ConnectionError:
        # Of the processes that a cluster forks for who comes from outside some in a hundred die at birth, unless
        # GRPC_ENABLE_FORK_SUPPORT is 0 there: github.com/ray-project/ray/issues/63202.
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
