"""An S3-compatible server on this machine (moto's), which checks keys and signatures as the real ones do."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from tests.loopback import free_port, wait_until_answered

REGION = "us-east-1"
BUCKET = "team"
USER = "team"
POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
UNCHECKED = 4  # requests before keys are checked: those of `let_a_user_in`


@dataclass(frozen=True)
class S3:
    """The server's address, and the key that it lets in."""

    url: str
    key: str
    secret: str

    @property
    def environment(self) -> dict[str, str]:
        """What a user exports."""
        return {"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret, "AWS_DEFAULT_REGION": REGION}

    def client(self) -> Any:
        """boto3's client for the server."""
        keys = {"aws_access_key_id": self.key, "aws_secret_access_key": self.secret, "region_name": REGION}
        return boto3.client("s3", endpoint_url=self.url, **keys)

    def names(self) -> list[str]:
        """The names of all objects in the bucket."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]


def let_a_user_in(url: str) -> S3:
    """Make the bucket, and a user with a key; the last requests that the server answers to anybody."""
    anybody = {"aws_access_key_id": "anybody", "aws_secret_access_key": "anybody", "region_name": REGION, "endpoint_url": url}
    iam = boto3.client("iam", **anybody)
    iam.create_user(UserName=USER)
    key = iam.create_access_key(UserName=USER)["AccessKey"]
    iam.put_user_policy(UserName=USER, PolicyName="storage", PolicyDocument=json.dumps(POLICY))
    boto3.client("s3", **anybody).create_bucket(Bucket=BUCKET)
    return S3(url, key["AccessKeyId"], key["SecretAccessKey"])


@contextmanager
def serve_s3(folder: Path) -> Iterator[S3]:
    """Start the server on a free port, its log in `folder`, and end it at the close."""
    port, log = free_port(), folder / "s3.log"
    environment = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": str(UNCHECKED)}
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as file:
        server = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        wait_until_answered(f"http://127.0.0.1:{port}/moto-api/", server, lambda: log.read_text(encoding="utf-8"))
        yield let_a_user_in(f"http://127.0.0.1:{port}")
    finally:
        server.terminate()
        server.wait(timeout=30)
