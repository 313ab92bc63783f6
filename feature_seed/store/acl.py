"""The ACL lines of the seeder and of a scorer: every right that they use with this configuration, and no other."""

from collections.abc import Iterable, Sequence

from feature_seed.features.declared.declared import Declared
from feature_seed.store import commands
from feature_seed.store.cluster import ClusterStore
from feature_seed.store.online_store import OnlineStore

# What EVENT calls, and what a scorer calls that reads and writes the standard features itself.
_SCORER = (
    "evalsha exec get hdel hget hgetall hmget hset incr incrby lindex linsert llen lpush lrange ltrim multi ping rpush "
    "script|exists script|load set time"
)

# What a scorer calls for each kind of declared feature.
_BY_KIND = {
    "hash": "hget hgetall hincrby hincrbyfloat hmget hset",
    "string": "get incr incrby incrbyfloat set",
    "list": "lindex llen lpush lrange ltrim rpush",
    "zset": "zadd zcard zcount zrange zrangebyscore zremrangebyscore zscore",
    "set": "sadd scard sismember smembers",
}


def needed_by(store: OnlineStore, declared: Sequence[object], expires: bool = False) -> commands.Calls:
    """The commands without which this store cannot be seeded."""
    return {
        **commands.NEEDED,
        **(commands.NEEDED_BY_DECLARED if declared else {}),
        **(commands.NEEDED_TO_EXPIRE if expires else {}),
        **(commands.NEEDED_IN_CLUSTERS if isinstance(store, ClusterStore) else {}),
        **(commands.NEEDED_IN_FAILOVERS if store.fails_over else {}),
        **(commands.NEEDED_TO_WAIT if store.wait_replicas else {}),
    }


def acl(store: OnlineStore, declared: Sequence[Declared], expires: bool = False) -> list[str]:
    """The lines of the seeder and of the scorer. `expires`: whether features do. A cluster needs both on every node."""
    own = [f"~{start}*" for start in dict.fromkeys(one.key.partition("{")[0] for one in declared)]
    keys = [one for one in own if not one.startswith(("~card:", "~cust:"))]
    needed = (*needed_by(store, declared, expires), *commands.SPARED, "MULTI", "EXEC")
    seeder = (name.replace(" ", "|").lower() for name in needed)
    scorer = " ".join([_SCORER, *(_BY_KIND[one.kind] for one in declared)]).split()
    ends = ["expire", "pexpire"] if any(one.lifetime for one in declared) else []
    ends += ["pexpireat", "pttl"] if expires else []
    nodes = ["cluster|slots", "command", "asking"] if isinstance(store, ClusterStore) else []
    return [
        _line("seeder", ["~card:*", "~cust:*", "~feature_seed:*", *keys], seeder),
        _line("scorer", ["~card:*", "~cust:*", "%R~feature_seed:ready", *keys], [*scorer, *ends, *nodes]),
    ]


def _line(user: str, keys: Iterable[str], names: Iterable[str]) -> str:
    return " ".join([f"ACL SETUSER {user} on >…", *keys, *(f"+{name}" for name in sorted(set(names)))])
