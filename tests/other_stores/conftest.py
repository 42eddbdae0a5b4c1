"""Other implementations of S3 in containers: only with ``--stores all``, and then never without a word."""

from __future__ import annotations

import gc
import os
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from pgsteward.config import Config
from pgsteward.targets import Target
from tests.conftest import missing
from tests.integration.backup_targets import make_target
from tests.servers import Database

HERE = Path(__file__).parent
KEY, SECRET = "test:tester", "testing-is-no-secret"  # as swift/proxy-server.conf has them


@dataclass(frozen=True, slots=True)
class Swift:
    """OpenStack Swift behind its S3 interface."""

    endpoint_url: str

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )

    def make_bucket(self, *, versioned: bool = False) -> str:
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        client = self.client()
        client.create_bucket(Bucket=name)
        if versioned:
            client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        client.close()
        return name


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--stores") == "all":
        return
    ours = [item for item in items if HERE in item.path.parents]
    config.hook.pytest_deselected(items=ours)
    items[:] = [item for item in items if item not in ours]


@pytest.fixture(scope="session")
def swift(pytestconfig: pytest.Config) -> Iterator[Swift]:
    """Swift in a container, whose image is built here; see docs in its Dockerfile."""
    try:
        from testcontainers.core.container import DockerContainer
        from testcontainers.core.image import DockerImage
    except ImportError as exc:
        missing(pytestconfig, f"testcontainers is not installed: {exc}")
        raise
    try:
        image = DockerImage(path=HERE / "swift", tag="pgsteward-test-swift", clean_up=False).build()
        container = DockerContainer(str(image)).with_exposed_ports(8080)
        container.start()
    except Exception as exc:
        reason = f"no container of Swift: {exc}"
    else:
        reason = ""
    if reason:
        with warnings.catch_warnings():  # the Docker client leaves its socket to the garbage collector
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        missing(pytestconfig, reason)
    try:
        found = Swift(f"http://127.0.0.1:{container.get_exposed_port(8080)}")
        deadline = time.monotonic() + 90
        while not _answers(found):
            if time.monotonic() > deadline:
                raise AssertionError(f"Swift does not answer: {container.get_logs()}")
            time.sleep(0.5)
        yield found
    finally:
        container.stop()
        image.remove()


def _answers(swift: Swift) -> bool:
    client = swift.client()
    try:
        client.list_buckets()
        client.create_bucket(Bucket="are-you-ready")  # its servers start one after the other
    except (BotoCoreError, ClientError):
        return False
    finally:
        client.close()
    return True


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("SWIFT_KEY", KEY)
    monkeypatch.setenv("SWIFT_SECRET", SECRET)
    monkeypatch.setenv("SWIFT_CUSTOMER_KEY", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
    assert os.environ["SWIFT_KEY"]


@pytest.fixture
def target_in(swift: Swift, database: Database, tmp_path: Path) -> Callable[..., Target]:
    """Makes a target with a folder and a bucket of Swift."""

    def make(
        bucket: str | None = None,
        *,
        stores: tuple[str, ...] = ("disk", "swift"),
        store: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Target:
        data = make_target(database, tmp_path, **settings).config.model_dump(mode="json")
        data["stores"]["swift"] = {
            "url": f"s3://{bucket or swift.make_bucket()}/night",
            "endpoint_url": swift.endpoint_url,
            "access_key_id": {"env": "SWIFT_KEY"},
            "secret_access_key": {"env": "SWIFT_SECRET"},
            "timeout_s": 30.0,
            **(store or {}),
        }
        data["targets"]["app"]["stores"] = list(stores)
        config = Config.model_validate(data)
        return Target("app", config.target("app"), config)

    return make
