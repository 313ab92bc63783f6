"""Where a snapshot's files are: on this machine, or in an S3 bucket."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from feature_seed.errors import ConfigurationError, GoldError

_GLOB = "*?{}"


@dataclass(frozen=True)
class Place:
    """A snapshot, as ClickHouse's table functions name its files."""

    named: str  # as the operator has written it
    pattern: str  # the function's argument that names all files
    root: str | None  # the directory below which files may be hidden; None where a single file is named
    base: str = ""  # the URL of the bucket in S3; '' on this machine

    @property
    def function(self) -> str:
        """The table function that reads it."""
        return "s3" if self.base else "file"

    def argument(self, path: str) -> str:
        """The function's argument for one listed path, which begins with the bucket in S3."""
        return self.base + quote(path.partition("/")[2]) if self.base else path

    def below(self, path: str) -> str:
        """The part of a listed path below the root."""
        return path.removeprefix(self.root or path)

    @property
    def directory(self) -> bool:
        """Whether all Parquet files below `root` are meant."""
        return self.pattern.endswith("**")


def place_of(named: str, endpoint: str | None = None, region: str | None = None) -> Place:
    """The place that a path, a glob or an `s3://` address names."""
    if named.startswith("s3://"):
        return _in_s3(named, endpoint, region)
    if scheme := re.match(r"\w+://", named):
        raise ConfigurationError(
            f"FEATURE_SEED_GOLD_PARQUET {named!r}: {scheme[0]} is not read. Give a path, or s3://bucket/key"
        )
    if not set(named) & set(_GLOB):
        root = _listed_as(named)
        return Place(named, f"{root}**", root) if Path(named).is_dir() else Place(named, named, None)
    if Path(named).exists():
        raise GoldError(
            f"FEATURE_SEED_GOLD_PARQUET {named!r} is a file's name, and a glob that may match others: "
            f"rename what has one of {_GLOB} in its name"
        )
    return Place(named, named, _listed_as(_fixed(named)))


def _listed_as(directory: str) -> str:
    return os.path.abspath(directory) + "/"  # noqa: PTH100, since ClickHouse resolves `..` and leaves links


def _in_s3(named: str, endpoint: str | None, region: str | None) -> Place:
    address = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]+)(?:/(.*))?", named, re.DOTALL)
    if not address:
        raise ConfigurationError(f"FEATURE_SEED_GOLD_PARQUET {named!r} names no bucket: give s3://bucket/key")
    bucket, key = address[1], address[2] or ""
    base = f"{_bucket_url(bucket, endpoint, region)}/"
    if set(key) & set(_GLOB):
        return Place(named, base + quote(key, "/,*?{}"), f"{bucket}/{_fixed(key)}", base)
    # Without a slash at the end the key may be an object or a directory. Other keys that begin so are left out later.
    return Place(named, f"{base}{quote(key)}**", f"{bucket}/{key}", base)


def _bucket_url(bucket: str, endpoint: str | None, region: str | None) -> str:
    if endpoint:
        return f"{endpoint.rstrip('/')}/{bucket}"
    host = (
        "s3" + (f".{region}" if region else "") + ".amazonaws.com" + (".cn" if (region or "").startswith("cn-") else "")
    )
    # A certificate of *.s3.amazonaws.com does not cover a name with more dots.
    return f"https://{host}/{bucket}" if "." in bucket else f"https://{bucket}.{host}"


def _fixed(pattern: str) -> str:
    """The directory before the first variable part, with a slash at its end if it is named."""
    directory, slash, _ = re.split(r"[*?{}]", pattern)[0].rpartition("/")
    return directory + slash
