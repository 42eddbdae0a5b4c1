from __future__ import annotations

import datetime
import ipaddress
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import boto3
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from moto.server import ThreadedMotoServer

from pgsteward.config import Config, StoreConfig
from pgsteward.storage import Store, open_store, s3_probe
from pgsteward.targets import Target
from tests.faults_store.proxy import Proxy
from tests.integration.backup_targets import make_target
from tests.servers import Bucket, Database

MakeStore = Callable[..., tuple[Store, StoreConfig]]


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test knows the verdicts of another."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("MOTO_KEY", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("MOTO_SECRET", "not-a-secret-at-all")
    monkeypatch.setattr(s3_probe, "LOCK_S", 2.0)


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _host, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def moto_bucket(moto: str) -> Callable[..., str]:
    """Makes a bucket with a name of its own."""

    def make(**options: Any) -> str:
        name = f"bucket-{time.time_ns()}"
        client = boto3.client(
            "s3",
            endpoint_url=moto,
            region_name="us-east-1",
            aws_access_key_id="x",
            aws_secret_access_key="x",
        )
        versioned = options.pop("versioned", False)
        client.create_bucket(Bucket=name, **options)
        if versioned:
            client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        client.close()
        return name

    return make


@pytest.fixture
def proxy_to() -> Iterator[Callable[..., Proxy]]:
    """Starts a proxy before an endpoint."""
    with ExitStack() as stack:
        yield lambda upstream, tls=None: stack.enter_context(Proxy(upstream, tls).running())


@pytest.fixture
def moto_store(moto: str, moto_bucket: Callable[..., str]) -> MakeStore:
    """Opens a store in a bucket of moto, perhaps through a proxy."""

    def make(endpoint: str | None = None, bucket: str | None = None, **settings: Any) -> Any:
        config = StoreConfig.model_validate(
            {
                "url": f"s3://{bucket or moto_bucket()}/night",
                "endpoint_url": endpoint or moto,
                "access_key_id": {"env": "MOTO_KEY"},
                "secret_access_key": {"env": "MOTO_SECRET"},
                "retries": 2,
                "timeout_s": 30.0,
                **settings,
            }
        )
        return open_store("s3", config), config

    return make


@pytest.fixture
def rclone_store(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> MakeStore:
    """Opens a store of rclone, perhaps through a proxy."""
    monkeypatch.setenv("RCLONE_KEY", bucket.s3.access_key_id)
    monkeypatch.setenv("RCLONE_SECRET", bucket.s3.secret_access_key)

    def make(endpoint: str | None = None, **settings: Any) -> Any:
        config = StoreConfig.model_validate(
            {
                "url": bucket.url,
                "endpoint_url": endpoint or bucket.s3.endpoint_url,
                "access_key_id": {"env": "RCLONE_KEY"},
                "secret_access_key": {"env": "RCLONE_SECRET"},
                "retries": 2,
                "timeout_s": 30.0,
                **settings,
            }
        )
        return open_store("s3", config), config

    return make


@pytest.fixture
def moto_target(
    database: Database, tmp_path: Path, moto: str, moto_bucket: Callable[..., str]
) -> Callable[..., Target]:
    """Makes a target with a folder and a bucket of moto."""

    def make(bucket: str, *, store: dict[str, Any] | None = None, **settings: Any) -> Target:
        plain = make_target(database, tmp_path, backup={"proof": "none", "jobs": 1}, **settings)
        s3 = {
            "url": f"s3://{bucket}/night",
            "endpoint_url": moto,
            "access_key_id": {"env": "MOTO_KEY"},
            "secret_access_key": {"env": "MOTO_SECRET"},
            **(store or {}),
        }
        data = plain.config.model_dump(mode="json")
        data["stores"]["s3"] = s3
        data["targets"]["app"]["stores"] = ["disk", "s3"]
        config = Config.model_validate(data)
        return Target("app", config.target("app"), config)

    return make


def make_certificate(folder: Path, *, address: str = "127.0.0.1", days: int = 2) -> tuple[Path, Path]:
    """Return a certificate that nobody trusts by himself, and its key.

    Args:
        folder: For both.
        address: Whose it is.
        days: How long it is valid from now on; negative where it has expired.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, address)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=9))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))
