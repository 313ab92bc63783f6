"""A real S3 server of a test's own: moto in a process of its own, which checks signatures and rights."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3

from feature_seed_tests.support.redis_server import free_port

REGION = "us-east-1"

_USER = "seeder"

# So many requests are sent before moto asks who sends them: the four of `_make`.
_OPEN_REQUESTS = "4"


@dataclass(frozen=True)
class S3Server:
    """A running server with one bucket, and the key of the one user who may list, read and write it."""

    endpoint: str
    bucket: str
    key: str
    secret: str = field(repr=False)

    def put(self, key: str, body: bytes) -> None:
        _client("s3", self.endpoint, self.key, self.secret).put_object(Bucket=self.bucket, Key=key, Body=body)

    @property
    def variables(self) -> dict[str, str]:
        """The variables that the environment needs, except the address."""
        return {"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret}


@contextmanager
def s3_server(bucket: str) -> Iterator[S3Server]:
    """Start a server with an empty bucket, and end it afterwards."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    environment = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": _OPEN_REQUESTS}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait(port, process)
            yield _make(f"http://127.0.0.1:{port}", bucket)
        finally:
            process.terminate()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.05)
    raise RuntimeError(f"The S3 server ended with {process.returncode} before it answered")


def _make(endpoint: str, bucket: str) -> S3Server:
    _client("s3", endpoint).create_bucket(Bucket=bucket)
    users = _client("iam", endpoint)
    users.create_user(UserName=_USER)
    key = users.create_access_key(UserName=_USER)["AccessKey"]
    resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    rights = {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetObject", "s3:PutObject"], "Resource": resources}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [rights]})
    users.put_user_policy(UserName=_USER, PolicyName="gold", PolicyDocument=policy)
    return S3Server(endpoint, bucket, key["AccessKeyId"], key["SecretAccessKey"])


def _client(service: str, endpoint: str, key: str = "anyone", secret: str = "any") -> Any:
    return boto3.client(
        service, endpoint_url=endpoint, region_name=REGION, aws_access_key_id=key, aws_secret_access_key=secret
    )
