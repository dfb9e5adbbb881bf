"""The object store for a person's part of the work: buckets, files in, objects looked at and damaged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from mypy_boto3_s3 import S3Client

from harness.base import Cluster, S3Access


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """One object store with its administrator's key."""

    access: S3Access
    client: S3Client

    def make_bucket(self, name: str) -> None:
        """There afterwards, whether or not it was before."""
        try:
            self.client.create_bucket(Bucket=name)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise

    def remove_bucket(self, name: str) -> None:
        """With everything in it; fine when it is not there."""
        try:
            self.clear(name)
            self.client.delete_bucket(Bucket=name)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("NoSuchBucket", "404"):
                raise

    def buckets(self, prefix: str) -> list[str]:
        """The names that begin so."""
        names = [entry["Name"] for entry in self.client.list_buckets()["Buckets"]]
        return [name for name in names if name.startswith(prefix)]

    def put(self, bucket: str, key: str, content: bytes | Path) -> str:
        """Writes an object; its ETag."""
        body = content.read_bytes() if isinstance(content, Path) else content
        return self.client.put_object(Bucket=bucket, Key=key, Body=body)["ETag"]

    def get(self, bucket: str, key: str) -> bytes:
        return self.client.get_object(Bucket=bucket, Key=key)["Body"].read()

    def size(self, bucket: str, key: str) -> int | None:
        """Its length in bytes, None when it is not there."""
        try:
            return self.client.head_object(Bucket=bucket, Key=key)["ContentLength"]
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NoSuchBucket"):
                return None
            raise

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Every key below `prefix`."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def flip_byte(self, bucket: str, key: str, offset: int) -> None:
        """Damages one byte of an object, as a bad disk would; a negative offset counts from the end."""
        content = bytearray(self.get(bucket, key))
        content[offset] ^= 0xFF
        self.put(bucket, key, bytes(content))

    def delete(self, bucket: str, key: str) -> None:
        self.client.delete_object(Bucket=bucket, Key=key)

    def clear(self, bucket: str, prefix: str = "") -> int:
        """Removes everything below `prefix`; how many objects there were."""
        keys = self.keys(bucket, prefix)
        for key in keys:
            self.delete(bucket, key)
        return len(keys)


def connect(cluster: Cluster) -> ObjectStore:
    """The cluster's object store, reached from this machine."""
    access = cluster.s3()
    client = boto3.client(
        "s3",
        endpoint_url=access.endpoint,
        aws_access_key_id=access.access_key,
        aws_secret_access_key=access.secret_key,
        region_name=access.region,
        config=Config(s3={"addressing_style": "path"}, connect_timeout=5, read_timeout=30, retries={"max_attempts": 3}),
    )
    return ObjectStore(access, client)
