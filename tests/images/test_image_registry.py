"""Push and pull with a real registry: what is there stays, what is cut goes on, what is refused says why."""

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
BCRYPT = "$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK"  # of s3cret


def quiet(text: str) -> None:
    """Nothing."""


def pulled(address: str, name: str, store: Store) -> dict[str, bytes]:
    """Every blob of an image there, by digest."""
    image = parse_name(f"{address}/{name}")
    with Registry(address) as there:
        document = there.manifest(image).document
        blobs = [Descriptor.parse(document["config"]), *map(Descriptor.parse, document["layers"])]
        for blob in blobs:
            pull_blob(there, image.repository, blob, store)
    return {blob.digest: store.read(blob) for blob in blobs}


def test_what_is_pushed_can_be_pulled_and_is_the_same(images: Store, tmp_path: Path) -> None:
    image = small_image(images, "demo:1", [b"one" * 1000, b"two" * 1000])
    with registry(tmp_path / "registry") as address:
        done = push_image("demo:1", f"{address}/team/demo:1", store=images, report=quiet)
        assert (done.digest, done.blobs) == (image.digest, {"sent": 3, "mounted": 0, "there": 0})
        fetched = pulled(address, "team/demo:1", Store(tmp_path / "other"))
    assert fetched == {digest: images.path(digest).read_bytes() for digest in fetched}
    assert len(fetched) == 3


def test_a_change_of_the_model_sends_its_layer_alone(images: Store, tmp_path: Path) -> None:
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


def test_a_cut_is_gone_on_from(images: Store, tmp_path: Path) -> None:
    blob = os.urandom(2 * CHUNK + 1_000_000)
    small_image(images, "demo:1", [blob])
    with registry(tmp_path / "registry") as address:
        wire = Wire(address)
        wire.limits = [CHUNK + CHUNK // 2]  # in the middle of the second part
        done = push_image("demo:1", f"{wire.address}/demo:1", store=images, report=quiet, wait_s=0.01)
        assert done.blobs["sent"] == 2
        assert not wire.limits, "the wire was never cut"
        fetched = pulled(address, "demo:1", Store(tmp_path / "other"))
        wire.close()
    assert fetched == {digest: images.path(digest).read_bytes() for digest in fetched}


def test_another_process_goes_on_where_one_was_stopped(images: Store, tmp_path: Path) -> None:
    small_image(images, "demo:1", [os.urandom(3 * CHUNK)])
    blob = Descriptor.parse(images.document(images.find("demo:1"))["layers"][0])
    parts: list[int] = []

    def counted(there: Registry, most: int) -> Registry:
        """The same registry, whose client is stopped once it has sent `most` parts."""
        real = there.once

        def once(method: str, *where: str, **more: object) -> object:
            if method == "PATCH":
                if len(parts) == most:
                    raise KeyboardInterrupt
                parts.append(len(more["content"]))  # type: ignore[arg-type]
            return real(method, *where, **more)

        there.once = once  # type: ignore[method-assign]
        return there

    with registry(tmp_path / "registry") as address:
        with Registry(address) as there, pytest.raises(KeyboardInterrupt):
            push_blob(counted(there, 2), "demo", blob, images)
        with Registry(address) as there:
            assert push_blob(counted(there, 9), "demo", blob, images) == "sent"
        assert parts == [CHUNK, CHUNK, CHUNK, blob.size - 3 * CHUNK]
        assert pulled_blob(address, blob, Store(tmp_path / "other")) == images.read(blob)


def test_a_wire_that_stays_cut_is_told(images: Store, tmp_path: Path) -> None:
    small_image(images, "demo:1", [os.urandom(CHUNK)])
    with registry(tmp_path / "registry") as address:
        wire = Wire(address)
        wire.limits = [CHUNK // 2, *[1] * 40]
        with pytest.raises(TargetUnavailable, match="cut") as told:
            push_image("demo:1", f"{wire.address}/demo:1", store=images, report=quiet, wait_s=0.001)
        wire.close()
    assert "again" in told.value.remedy


def pulled_blob(address: str, blob: Descriptor, store: Store) -> bytes:
    with Registry(address) as there:
        pull_blob(there, "demo", blob, store)
    return store.read(blob)


def test_a_fetch_that_is_cut_goes_on(images: Store, tmp_path: Path) -> None:
    size = 4_000_000
    small_image(images, "demo:1", [os.urandom(size)])
    with registry(tmp_path / "registry") as address:
        push_image("demo:1", f"{address}/demo:1", store=images, report=quiet)
        whole = images.document(images.find("demo:1"))
        blob = Descriptor.parse(whole["layers"][0])
        half = Store(tmp_path / "half")
        with Registry(address, wait_s=0.01) as there:
            real, cut = there.once, [True]

            def once(method: str, where: str, scope: str, **more: object) -> object:
                answer = real(method, where, scope, **more)
                if more.get("stream") and cut.pop():
                    cut.append(False)
                    raw = answer.iter_raw

                    def broken() -> object:
                        for count, part in enumerate(raw(65536)):
                            if count == 20:
                                import httpx

                                raise httpx.ReadError("cut")
                            yield part

                    answer.iter_raw = broken
                else:
                    asked.append(str(answer.request.headers.get("range")))
                return answer

            asked: list[str] = []
            there.once = once  # type: ignore[method-assign]
            pull_blob(there, "demo", blob, half)
        assert asked == [f"bytes={20 * 65536}-"]
        assert half.read(blob) == images.read(blob)


def test_a_registry_that_wants_a_password(images: Store, tmp_path: Path) -> None:
    small_image(images, "demo:1", [b"x"])
    (tmp_path / "htpasswd").write_text(f"ann:{BCRYPT}\n")
    more = f"auth: {{htpasswd: {{realm: here, path: {tmp_path / 'htpasswd'}}}}}"
    with registry(tmp_path / "registry", more) as address:
        for known in (None, ("ann", "wrong")):
            with pytest.raises(Unauthorized, match="401"):
                push_image("demo:1", f"{address}/demo:1", store=images, credentials=lambda _, k=known: k, report=quiet)
        ann = lambda host: ("ann", "s3cret") if host == address else None  # noqa: E731
        assert push_image("demo:1", f"{address}/demo:1", store=images, credentials=ann, report=quiet).blobs["sent"] == 2


def test_the_tag_of_a_bundle_is_given_once(images: Store, tmp_path: Path) -> None:
    small_image(images, "demo:1", [b"one environment", b"model"])
    small_image(images, "demo:2", [b"another environment", b"model"])
    with registry(tmp_path / "registry") as address:
        done = push_image("demo:1", f"{address}/demo", store=images, report=quiet)
        assert done.name == f"{address}/demo:sha256-" + "ab" * 32
        assert push_image("demo:1", f"{address}/demo", store=images, report=quiet).sent_bytes == 0
        with pytest.raises(AlreadyDeployed):
            push_image("demo:2", f"{address}/demo", store=images, report=quiet)


def test_an_index_goes_with_all_its_images(images: Store, tmp_path: Path) -> None:
    one, other = small_image(images, "a:1", [b"amd"]), small_image(images, "b:1", [b"arm"])
    image = pair(images, "both:1", one, other)
    with registry(tmp_path / "registry") as address:
        done = push_image("both:1", f"{address}/both:1", store=images, report=quiet)
        with Registry(address) as there:
            found = there.manifest(parse_name(f"{address}/both:1"))
            assert found.blob.digest == done.digest == image.digest
            for platform, wanted in ((AMD64, one), (ARM64, other)):
                chosen = choose(found.document["manifests"], platform, "both")
                assert chosen == wanted
                assert there.manifest(parse_name(f"{address}/both@{chosen.digest}")).blob.media_type in MANIFESTS


def test_a_platform_that_an_index_lacks_is_named() -> None:
    entry = {"mediaType": "x", "digest": "sha256:" + "0" * 64, "size": 1, "platform": AMD64.document}
    with pytest.raises(EngineUnavailable, match="linux/amd64"):
        choose([entry], ARM64, "base")


def test_what_is_not_there_and_who_does_not_answer(images: Store, tmp_path: Path) -> None:
    small_image(images, "demo:1", [b"x"])
    with (
        registry(tmp_path / "registry") as address,
        Registry(address) as there,
        pytest.raises(InputNotFound, match="nothing:1"),
    ):
        there.manifest(parse_name(f"{address}/nothing:1"))
    with pytest.raises(TargetUnavailable) as refused:
        push_image("demo:1", f"{address}/demo:1", store=images, report=quiet, wait_s=0.001)
    assert "again" in refused.value.remedy


def test_the_command_pushes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_image(Store(tmp_path / "cache" / "images"), "demo:1", [b"x"])
    monkeypatch.setenv("LIKEWISE_CACHE_HOME", str(tmp_path / "cache"))
    with registry(tmp_path / "registry") as address:
        done = call("image", "push", "demo:1", f"{address}/demo:1", "--json")
        assert done.returncode == 0, done.stderr
        assert '"sent": 2' in done.stdout
