"""Push and pull with a real registry: deduplication, resumed transfers, authentication and errors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.support.cli import call
from tests.support.containers.images import AMD64, ARM64, pair, small_image
from tests.support.containers.registry import Wire, registry

from likewise.core.errors import AlreadyDeployed, EngineUnavailable, InputNotFound, TargetUnavailable, Unauthorized
from likewise.images.base import choose
from likewise.images.oci import MANIFESTS, Descriptor, parse_name
from likewise.images.push import push_image
from likewise.images.registry import Registry
from likewise.images.store import Store
from likewise.images.transfer import CHUNK, pull_blob, push_blob

pytest_plugins = ("tests.support.containers.fixtures",)
BCRYPT = "$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK"  # hash of "s3cret"


def quiet(text: str) -> None:
    """Discard a progress message."""


def pulled(address: str, name: str, store: Store) -> dict[str, bytes]:
    """Pull every blob of an image from the registry at `address`; returns them by digest."""
    image = parse_name(f"{address}/{name}")
    with Registry(address) as client:
        document = client.manifest(image).document
        blobs = [Descriptor.parse(document["config"]), *map(Descriptor.parse, document["layers"])]
        for blob in blobs:
            pull_blob(client, image.repository, blob, store)
    return {blob.digest: store.read(blob) for blob in blobs}


def test_pushed_image_can_be_pulled_unchanged(images: Store, tmp_path: Path) -> None:
    image = small_image(images, "demo:1", [b"one" * 1000, b"two" * 1000])
    with registry(tmp_path / "registry") as address:
        pushed = push_image("demo:1", f"{address}/team/demo:1", store=images, report=quiet)
        assert (pushed.digest, pushed.blobs) == (image.digest, {"sent": 3, "mounted": 0, "there": 0})
        fetched = pulled(address, "team/demo:1", Store(tmp_path / "other"))
    assert fetched == {digest: images.path(digest).read_bytes() for digest in fetched}
    assert len(fetched) == 3


def test_new_model_sends_only_its_own_layer(images: Store, tmp_path: Path) -> None:
    environment = os.urandom(300_000)
    small_image(images, "demo:1", [environment, b"model 1"])
    small_image(images, "demo:2", [environment, b"model 2"])
    with registry(tmp_path / "registry") as address:
        first = push_image("demo:1", f"{address}/demo:1", store=images, report=quiet)
        second = push_image("demo:2", f"{address}/demo:2", store=images, report=quiet)
        again = push_image("demo:2", f"{address}/demo:2", store=images, report=quiet)
        elsewhere = push_image("demo:2", f"{address}/other:2", store=images, report=quiet)
    assert first.sent_bytes > 300_000
    assert second.blobs == {"sent": 2, "mounted": 0, "there": 1}  # configuration and model
    assert second.sent_bytes < 20_000
    assert again.blobs == {"sent": 0, "mounted": 0, "there": 3}
    assert elsewhere.blobs == {"sent": 0, "mounted": 3, "there": 0}


def test_interrupted_push_is_retried(images: Store, tmp_path: Path) -> None:
    blob = os.urandom(2 * CHUNK + 1_000_000)
    small_image(images, "demo:1", [blob])
    with registry(tmp_path / "registry") as address:
        wire = Wire(address)
        wire.limits = [CHUNK + CHUNK // 2]  # in the middle of the second part
        pushed = push_image("demo:1", f"{wire.address}/demo:1", store=images, report=quiet, wait_s=0.01)
        assert pushed.blobs["sent"] == 2
        assert not wire.limits, "the connection was never interrupted"
        fetched = pulled(address, "demo:1", Store(tmp_path / "other"))
        wire.close()
    assert fetched == {digest: images.path(digest).read_bytes() for digest in fetched}


def test_push_is_resumed_by_another_process(images: Store, tmp_path: Path) -> None:
    small_image(images, "demo:1", [os.urandom(3 * CHUNK)])
    blob = Descriptor.parse(images.document(images.find("demo:1"))["layers"][0])
    parts: list[int] = []

    def interrupted_after(client: Registry, limit: int) -> Registry:
        """The same client, which is interrupted after it has sent `limit` parts."""
        real = client.request_once

        def request_once(method: str, *arguments: str, **options: object) -> object:
            if method == "PATCH":
                if len(parts) == limit:
                    raise KeyboardInterrupt
                parts.append(len(options["content"]))  # type: ignore[arg-type]
            return real(method, *arguments, **options)

        client.request_once = request_once  # type: ignore[method-assign]
        return client

    with registry(tmp_path / "registry") as address:
        with Registry(address) as client, pytest.raises(KeyboardInterrupt):
            push_blob(interrupted_after(client, 2), "demo", blob, images)
        with Registry(address) as client:
            assert push_blob(interrupted_after(client, 9), "demo", blob, images) == "sent"
        assert parts == [CHUNK, CHUNK, CHUNK, blob.size - 3 * CHUNK]
        assert pulled_blob(address, blob, Store(tmp_path / "other")) == images.read(blob)


def test_repeated_interruption_is_reported(images: Store, tmp_path: Path) -> None:
    small_image(images, "demo:1", [os.urandom(CHUNK)])
    with registry(tmp_path / "registry") as address:
        wire = Wire(address)
        wire.limits = [CHUNK // 2, *[1] * 40]
        with pytest.raises(TargetUnavailable, match="interrupted") as raised:
            push_image("demo:1", f"{wire.address}/demo:1", store=images, report=quiet, wait_s=0.001)
        wire.close()
    assert "again" in raised.value.remedy


def pulled_blob(address: str, blob: Descriptor, store: Store) -> bytes:
    with Registry(address) as client:
        pull_blob(client, "demo", blob, store)
    return store.read(blob)


def test_interrupted_download_resumes_at_its_offset(images: Store, tmp_path: Path) -> None:
    size = 4_000_000
    small_image(images, "demo:1", [os.urandom(size)])
    with registry(tmp_path / "registry") as address:
        push_image("demo:1", f"{address}/demo:1", store=images, report=quiet)
        manifest = images.document(images.find("demo:1"))
        blob = Descriptor.parse(manifest["layers"][0])
        partial = Store(tmp_path / "partial")
        with Registry(address, wait_s=0.01) as client:
            real, interrupt = client.request_once, [True]

            def request_once(method: str, path: str, scope: str, **options: object) -> object:
                response = real(method, path, scope, **options)
                if options.get("stream") and interrupt.pop():
                    interrupt.append(False)
                    raw = response.iter_raw

                    def broken() -> object:
                        for count, part in enumerate(raw(65536)):
                            if count == 20:
                                import httpx

                                raise httpx.ReadError("interrupted")
                            yield part

                    response.iter_raw = broken
                else:
                    ranges.append(str(response.request.headers.get("range")))
                return response

            ranges: list[str] = []
            client.request_once = request_once  # type: ignore[method-assign]
            pull_blob(client, "demo", blob, partial)
        assert ranges == [f"bytes={20 * 65536}-"]
        assert partial.read(blob) == images.read(blob)


def test_registry_with_password_authentication(images: Store, tmp_path: Path) -> None:
    small_image(images, "demo:1", [b"x"])
    (tmp_path / "htpasswd").write_text(f"ann:{BCRYPT}\n")
    more = f"auth: {{htpasswd: {{realm: here, path: {tmp_path / 'htpasswd'}}}}}"
    with registry(tmp_path / "registry", more) as address:
        for wrong in (None, ("ann", "wrong")):
            with pytest.raises(Unauthorized, match="401"):
                push_image("demo:1", f"{address}/demo:1", store=images, credentials=lambda _, w=wrong: w, report=quiet)
        ann = lambda host: ("ann", "s3cret") if host == address else None  # noqa: E731
        assert push_image("demo:1", f"{address}/demo:1", store=images, credentials=ann, report=quiet).blobs["sent"] == 2


def test_bundle_tag_is_never_moved_to_another_image(images: Store, tmp_path: Path) -> None:
    small_image(images, "demo:1", [b"one environment", b"model"])
    small_image(images, "demo:2", [b"another environment", b"model"])
    with registry(tmp_path / "registry") as address:
        pushed = push_image("demo:1", f"{address}/demo", store=images, report=quiet)
        assert pushed.name == f"{address}/demo:sha256-" + "ab" * 32
        assert push_image("demo:1", f"{address}/demo", store=images, report=quiet).sent_bytes == 0
        with pytest.raises(AlreadyDeployed):
            push_image("demo:2", f"{address}/demo", store=images, report=quiet)


def test_index_is_pushed_with_all_its_images(images: Store, tmp_path: Path) -> None:
    one, other = small_image(images, "a:1", [b"amd"]), small_image(images, "b:1", [b"arm"])
    image = pair(images, "both:1", one, other)
    with registry(tmp_path / "registry") as address:
        pushed = push_image("both:1", f"{address}/both:1", store=images, report=quiet)
        with Registry(address) as client:
            index = client.manifest(parse_name(f"{address}/both:1"))
            assert index.blob.digest == pushed.digest == image.digest
            for platform, wanted in ((AMD64, one), (ARM64, other)):
                chosen = choose(index.document["manifests"], platform, "both")
                assert chosen == wanted
                assert client.manifest(parse_name(f"{address}/both@{chosen.digest}")).blob.media_type in MANIFESTS


def test_missing_platform_in_an_index_is_reported() -> None:
    entry = {"mediaType": "x", "digest": "sha256:" + "0" * 64, "size": 1, "platform": AMD64.document}
    with pytest.raises(EngineUnavailable, match="linux/amd64"):
        choose([entry], ARM64, "base")


def test_missing_image_and_unreachable_registry_are_reported(images: Store, tmp_path: Path) -> None:
    small_image(images, "demo:1", [b"x"])
    with (
        registry(tmp_path / "registry") as address,
        Registry(address) as client,
        pytest.raises(InputNotFound, match="missing:1"),
    ):
        client.manifest(parse_name(f"{address}/missing:1"))
    with pytest.raises(TargetUnavailable) as raised:
        push_image("demo:1", f"{address}/demo:1", store=images, report=quiet, wait_s=0.001)
    assert "again" in raised.value.remedy


def test_push_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_image(Store(tmp_path / "cache" / "images"), "demo:1", [b"x"])
    monkeypatch.setenv("LIKEWISE_CACHE_HOME", str(tmp_path / "cache"))
    with registry(tmp_path / "registry") as address:
        for name in ("HTTP_PROXY", "https_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
        completed = call("image", "push", "demo:1", f"{address}/demo:1", "--json")
        assert completed.returncode == 0, completed.stderr
        assert '"sent": 2' in completed.stdout
