"""Every Redis command that is sent: those without which nothing is right, and those that are done without.

Clouds and administrators take commands away, by name or by rights. What is done without costs something: `DONE_WITHOUT`
says what, and the check before the first write warns of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import redis

from feature_seed.contract import READY

T = TypeVar("T")

NO_SCRIPT = "0" * 40

# Commands with arguments that they take.
Commands = Mapping[str, tuple[str, ...]]

NEEDED: Commands = {
    "DEL": (READY.pattern,),
    "EVALSHA": (NO_SCRIPT, "1", READY.pattern),
    "GET": (READY.pattern,),
    "HDEL": (READY.pattern, "state"),
    "HGETALL": (READY.pattern,),
    "HMGET": (READY.pattern, "state"),
    "HSET": (READY.pattern, "state", ""),
    "HSETNX": (READY.pattern, "state", ""),
    "LRANGE": (READY.pattern, "0", "-1"),
    "LTRIM": (READY.pattern, "0", "-1"),
    "MSET": (READY.pattern, ""),
    "PING": (),
    "RPUSH": (READY.pattern, ""),
    "SCRIPT LOAD": ("return 1",),
    "SET": (READY.pattern, ""),
    "TIME": (),
}

# The same where features are declared; what expires or is united needs more than what is replaced.
NEEDED_BY_DECLARED: Commands = {
    "EXISTS": (READY.pattern,),
    "LLEN": (READY.pattern,),
    "PERSIST": (READY.pattern,),
    "PEXPIREAT": (READY.pattern, "0"),
    "PTTL": (READY.pattern,),
    "SADD": (READY.pattern, ""),
    "SMEMBERS": (READY.pattern,),
    "STRLEN": (READY.pattern,),
    "ZADD": (READY.pattern, "0", ""),
    "ZCARD": (READY.pattern,),
    "ZRANGE": (READY.pattern, "0", "-1"),
    "ZREMRANGEBYSCORE": (READY.pattern, "0", "0"),
}

# The same of a cluster, of a store that sentinels or a cluster may replace, and of waiting for replicas.
NEEDED_IN_CLUSTERS: Commands = {"ASKING": (), "CLUSTER SLOTS": (), "COMMAND": ()}
NEEDED_IN_FAILOVERS: Commands = {"INFO": ()}
NEEDED_TO_WAIT: Commands = {"WAIT": ("0", "1")}

_NOT_CUT_OFF = "a run that was suspended for longer than its lease may still write a batch when it wakes up"
_RESTART = "a restart of it during the job is noticed only if it lost everything"
_MEMORY = "whether it has room for the features is not checked"

# Fields of INFO that some stores leave out, and what is less good then.
FIELDS: Mapping[str, str] = {
    "redis_version": "its version is not checked",
    "role": "that it is a replica is noticed only when it refuses the first write",
    "used_memory": _MEMORY,
    "maxmemory": _MEMORY,
    "maxmemory_policy": "whether it may evict features is not checked",
    "run_id": _RESTART,
}


@dataclass(frozen=True)
class Spared:
    """A command that is done without where it is missing.

    Attributes:
        arguments: some that it takes.
        lost: what is less good then.
    """

    arguments: tuple[str, ...]
    lost: str


DONE_WITHOUT: Mapping[str, Spared] = {
    "CLIENT KILL": Spared(("ID", "0"), _NOT_CUT_OFF),
    "CLIENT LIST": Spared((), _NOT_CUT_OFF),
    "CLIENT SETNAME": Spared(("",), _NOT_CUT_OFF),
    "EXISTS": Spared((READY.pattern,), "the memory estimate takes every entity for a new one"),
    "INFO": Spared((), f"its version, role and memory are not checked, and {_RESTART}"),
    "MEMORY USAGE": Spared((READY.pattern,), "the report does not say how many bytes an entity takes"),
    "SCAN": Spared(("0",), "the check unknown_entities looks at no key"),
}


def spared(call: Callable[[], T], otherwise: T) -> T:
    """What a command of DONE_WITHOUT replies, or what stands for that where it is missing or forbidden."""
    try:
        return call()
    except redis.ResponseError:
        return otherwise
