"""Bucket policy of Label Studio's keys, and the rule for browsers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.object_store import BUCKET, KEYS, s3_server

FILES = Path(__file__).parents[2] / "deploy" / "s3"
HOME = "arn:aws:s3:::faces/home"


@pytest.mark.parametrize(
    ("action", "resource", "allowed"),
    [
        ("s3:GetObject", f"{HOME}/media/crops/ab/0.png", True),
        ("s3:GetObject", f"{HOME}/media/clips/v-0001.webm", True),
        ("s3:ListBucket", "arn:aws:s3:::faces", True),
        ("s3:GetObject", f"{HOME}/salt", False),
        ("s3:GetObject", f"{HOME}/tables/annotations/x.parquet", False),
        ("s3:GetObject", f"{HOME}/people/person-1.json", False),
        ("s3:GetObject", f"{HOME}/mediaeval/x", False),
        ("s3:GetObject", "arn:aws:s3:::faces/other/media/x.png", False),
        ("s3:PutObject", f"{HOME}/media/crops/ab/0.png", False),
        ("s3:DeleteObject", f"{HOME}/media/crops/ab/0.png", False),
        ("s3:ListBucket", "arn:aws:s3:::elsewhere", False),
    ],
)
def test_policy__media_only(action: str, resource: str, allowed: bool) -> None:
    from moto.iam.access_control import IAMPolicy, PermissionResult

    text = (FILES / "media-reader.json").read_text()
    policy = IAMPolicy(text.replace("BUCKET", "faces").replace("PREFIX", "home"))
    found = policy.is_action_permitted(action, resource)
    assert (found == PermissionResult.PERMITTED) == allowed
    # A condition limits listing to the same folder; this evaluator ignores it.
    listing = json.loads(text)["Statement"][1]
    assert listing["Condition"]["StringLike"]["s3:prefix"] == "PREFIX/media/*"


def test_cors__accepted_by_store() -> None:
    import boto3

    rules = json.loads((FILES / "cors.json").read_text())
    with s3_server() as url:
        store = boto3.client(
            "s3", endpoint_url=url, region_name=KEYS["AWS_DEFAULT_REGION"],
            aws_access_key_id="k", aws_secret_access_key="s",
        )  # fmt: skip
        store.put_bucket_cors(Bucket=BUCKET, CORSConfiguration=rules)
        assert store.get_bucket_cors(Bucket=BUCKET)["CORSRules"] == rules["CORSRules"]
