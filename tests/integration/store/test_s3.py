"""Checkpoints of real processes, carried through a real S3 server on loopback, come back on the other side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbcr.store import Store
from tests.integration.store.programs import changing, cli
from tests.support import ProcessTracker

BUCKET = "nbcr-checkpoints"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a bucket of a server of ours."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tests")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tests")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    try:
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
        client.create_bucket(Bucket=BUCKET)
        yield f"s3://{BUCKET}/some/where"
    finally:
        server.stop()


def told(store: Store, *words: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(cli(store, *words, "--json").stdout)
    return found


def test_a_process_comes_back_from_a_bucket(tmp_path: Path, processes: ProcessTracker, s3: str) -> None:
    store, other = Store(tmp_path / "store"), Store(tmp_path / "other")
    with changing(store, 2, 4) as program:
        program.communicate("")
    assert told(store, "push", s3, "c0")["entries"] == ["c0"]
    sent = told(store, "push", s3)
    assert (sent["entries"], sent["already"]) == (["c1"], ["c0"])
    assert int(str(sent["size_bytes"])) < 4 << 20
    fetched = told(other, "pull", s3, "c1")
    assert [entry["name"] for entry in fetched["entries"]] == ["c1"]  # type: ignore[attr-defined]
    collected = told(store, "gc", "--remote", s3)
    assert (collected["removed"], collected["condemned"]) == (0, 0)
    cli(other, "restart", "c1", status=11)
    archive = str(tmp_path / "c1.nbcr")
    cli(other, "export", "c1", archive)
    third = Store(tmp_path / "third")
    cli(third, "import", archive)
    cli(third, "restart", "c1", status=11)
    assert told(third, "verify", "--all")["whole"] is True
