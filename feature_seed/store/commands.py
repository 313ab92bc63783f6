"""Every Redis command that is sent: the commands that a load needs, and those that it can do without.

Clouds and administrators take commands away, by name or by rights. `DONE_WITHOUT` says what is lost without a command.
The check before the first write warns of that.
"""

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

import redis

from feature_seed.contract import READY

T = TypeVar("T")

# Commands by their names, each with arguments that it takes.
Calls = Mapping[str, str]


def _calls(text: str) -> Calls:
    """With a key that the user may use: Redis logs the use of any other."""
    calls = text.replace("key", READY.pattern).split("|")
    return {" ".join(re.findall(r"\b[A-Z]+\b", call)): call.strip() for call in calls}


NEEDED = _calls(
    "DEL key | EVALSHA script 1 key | EXISTS key | GET key | HDEL key field | HGETALL key | HMGET key field | "
    "HSET key field value | HSETNX key field value | LRANGE key 0 -1 | LTRIM key 0 -1 | MSET key value | PING | "
    "RPUSH key value | SCRIPT LOAD text | SET key value | TIME"
)

# Needed besides where features are declared. A key that expires or is united needs more than one that is replaced.
NEEDED_BY_DECLARED = _calls(
    "LLEN key | PERSIST key | PEXPIREAT key 0 | PTTL key | SADD key member | SMEMBERS key | STRLEN key | "
    "ZADD key 0 member | ZCARD key | ZRANGE key 0 -1 | ZREMRANGEBYSCORE key 0 0"
)

# Needed besides where standard features expire.
NEEDED_TO_EXPIRE = _calls("PERSIST key | PEXPIREAT key 0 | PTTL key")

# Needed besides in a cluster, in a store whose primary may be replaced, and to wait for replicas.
NEEDED_IN_CLUSTERS = _calls("ASKING | CLUSTER SLOTS | COMMAND")
NEEDED_IN_FAILOVERS = _calls("INFO")
NEEDED_TO_WAIT = _calls("WAIT 0 1")

SPARED = _calls("CLIENT KILL id 0 | CLIENT LIST | CLIENT SETNAME name | INFO | MEMORY USAGE key | SCAN 0")

_RESTART = "a restart of it during the job is noticed only if it lost everything"

# What is lost without a command.
DONE_WITHOUT: Mapping[str, str] = {
    **dict.fromkeys(
        ("CLIENT KILL", "CLIENT LIST", "CLIENT SETNAME"),
        "a run that was suspended for longer than its lease may still write a batch when it wakes up",
    ),
    "INFO": f"its version, role and memory are not checked, and {_RESTART}",
    "MEMORY USAGE": "the report does not say how many bytes an entity takes",
    "SCAN": "the check unknown_entities looks at no key, and departed fails",
}

# Fields of INFO that some stores leave out, and what is lost then.
FIELDS: Mapping[str, str] = {
    "redis_version": "its version is not checked",
    "role": "that it is a replica is noticed only when it refuses the first write",
    **dict.fromkeys(("used_memory", "maxmemory"), "whether it has room for the features is not checked"),
    "maxmemory_policy": "whether it may evict features is not checked",
    "run_id": _RESTART,
}


def spared(call: Callable[[], T], otherwise: T) -> T:
    """The reply to a command of DONE_WITHOUT, or `otherwise` if the command is missing or forbidden."""
    try:
        return call()
    except redis.ResponseError:
        return otherwise
