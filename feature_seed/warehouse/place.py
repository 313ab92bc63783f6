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
    """A snapshot, as ClickHouse's table functions name its files.

    Attributes:
        named: as the operator has written it.
        function: the table function that reads it.
        pattern: the function's argument for all files.
        root: the directory below which files may be hidden; None where a single file is named.
        before, base: how a listed path begins, and the function's argument for it instead.
    """

    named: str
    function: str
    pattern: str
    root: str | None
    before: str = ""
    base: str = ""

    def argument(self, path: str) -> str:
        """The function's argument for one listed path."""
        return path if self.function == "file" else self.base + quote(path.removeprefix(self.before))

    def below(self, path: str) -> str:
        """The part of a listed path below the root."""
        return path.removeprefix(self.root or path)

    @property
    def directory(self) -> bool:
        """Whether all Parquet files below `root` are meant."""
        return self.pattern.endswith("**")


def place_of(named: str, endpoint: str | None = None, region: str | None = None) -> Place:
    """The place that a path, a glob or an `s3://` address names.

    Raises:
        ConfigurationError: an address that is not read.
        GoldError: a path that is a glob as well.
    """
    if named.startswith("s3://"):
        return _in_s3(named, endpoint, region)
    if scheme := re.match(r"\w+://", named):
        raise ConfigurationError(
            f"FEATURE_SEED_GOLD_PARQUET {named!r}: {scheme[0]} is not read. Give a path, or s3://bucket/key"
        )
    if set(named) & set(_GLOB):
        if Path(named).exists():
            raise GoldError(
                f"FEATURE_SEED_GOLD_PARQUET {named!r} is a file's name, and a glob that may match others: "
                f"rename what has one of {_GLOB} in its name"
            )
        return Place(named, "file", named, _listed_as(_fixed(named)))
    if Path(named).is_dir():
        root = _listed_as(named)
        return Place(named, "file", f"{root}**", root)
    return Place(named, "file", named, None)


def _listed_as(directory: str) -> str:
    return os.path.abspath(directory) + "/"  # noqa: PTH100, since ClickHouse resolves `..` and leaves links


def _in_s3(named: str, endpoint: str | None, region: str | None) -> Place:
    address = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]+)(?:/(.*))?", named, re.DOTALL)
    if not address:
        raise ConfigurationError(f"FEATURE_SEED_GOLD_PARQUET {named!r} names no bucket: give s3://bucket/key")
    bucket, key = address[1], address[2] or ""
    base = f"{_bucket_url(bucket, endpoint, region)}/"
    if set(key) & set(_GLOB):
        return Place(named, "s3", base + quote(key, "/,*?{}"), f"{bucket}/{_fixed(key)}", f"{bucket}/", base)
    # Without a slash at its end it may be an object as well as a directory: what else begins so is left out later.
    return Place(named, "s3", f"{base}{quote(key)}**", f"{bucket}/{key}", f"{bucket}/", base)


def _bucket_url(bucket: str, endpoint: str | None, region: str | None) -> str:
    if endpoint:
        return f"{endpoint.rstrip('/')}/{bucket}"
    host = (
        "s3" + (f".{region}" if region else "") + ".amazonaws.com" + (".cn" if (region or "").startswith("cn-") else "")
    )
    # A certificate of *.s3.amazonaws.com is not one of a name with more dots.
    return f"https://{host}/{bucket}" if "." in bucket else f"https://{bucket}.{host}"


def _fixed(pattern: str) -> str:
    """The directory before the first variable part, with a slash at its end if it is named."""
    directory, slash, _ = re.split(r"[*?{}]", pattern)[0].rpartition("/")
    return directory + slash
