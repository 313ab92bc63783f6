"""Blocks of commands that no stream has made."""

from feature_seed.store.block import Block


def block_of(*commands: str, times: int = 1) -> Block:
    """A block of such commands as `SET key value`, each so many times: the second word of each is its key."""
    words = [command.encode().split() for command in commands]
    payloads = [
        b"".join([b"*%d\r\n" % len(one), *(b"$%d\r\n%b\r\n" % (len(word), word) for word in one)]) * times
        for one in words
    ]
    keys = [one[1] for one in words]
    return Block([0] * len(words), keys, b"".join(payloads), [*map(len, payloads)], commands=times, guarded=False)
