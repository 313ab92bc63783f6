"""The one private name of redis-py that feature_seed uses."""

import socket

import redis


def opened_socket(connection: redis.Connection) -> socket.socket:
    """The socket of a connection that is set up.

    `_get_socket` is private. There is no public way: redis-py reads replies one by one, which costs microseconds each,
    and hiredis by itself a tenth of that, but it needs the bytes. And only a socket can be hung up from another thread.
    What would replace it: connections of our own, with TLS and login; or bulk replies in redis-py.
    """
    opened = connection._get_socket()
    assert opened  # pools give out connections that are set up
    return opened
