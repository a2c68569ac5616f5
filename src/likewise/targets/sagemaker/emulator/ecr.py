"""ECR's interface by moto, over a real registry: its answers name that registry, and tell of the images in it."""

from __future__ import annotations

import http.client
import io
import json
from collections.abc import Iterable
from contextlib import closing
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Request, Response

from likewise.targets.sagemaker.emulator.account import ID, Account

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PATIENCE_S = 10.0
MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_OF_IMAGES = frozenset({"DescribeImages", "ListImages", "BatchGetImage", "BatchDeleteImage"})


class Ecr:
    """A WSGI application; registry: HOST:PORT, by plain HTTP, as a registry on loopback speaks."""

    def __init__(self, moto: Any, account: Account, registry: str) -> None:
        self._moto = moto
        self._account = account
        self._registry = registry
        self._theirs = f"{ID}.dkr.ecr.{account.region}.amazonaws.com"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ, populate_request=False)
        if request.headers.get("X-Amz-Target", "").rpartition(".")[2] in _OF_IMAGES:
            body = request.get_data()
            environ["wsgi.input"] = io.BytesIO(body)
            self._know(str(json.loads(body or b"{}").get("repositoryName", "")))
        response = Response.from_app(self._moto, environ)
        text = response.get_data(as_text=True).replace(f"https://{self._theirs}", f"http://{self._registry}")
        response.set_data(text.replace(self._theirs, self._registry))
        return response(environ, start_response)

    def _know(self, repository: str) -> None:
        listed = self._found(f"/v2/{repository}/tags/list")
        for tag in (json.loads(listed[1]).get("tags") or []) if listed else []:
            if found := self._found(f"/v2/{repository}/manifests/{tag}"):
                headers, manifest = found
                self._account.know_image(
                    repositoryName=repository,
                    imageTag=tag,
                    imageManifest=manifest.decode(),
                    imageManifestMediaType=headers.get("Content-Type", MANIFESTS[0]),
                    imageDigest=headers.get("Docker-Content-Digest", ""),
                )

    def _found(self, path: str) -> tuple[http.client.HTTPMessage, bytes] | None:
        """Headers and body; None where the registry does not give it."""
        with closing(http.client.HTTPConnection(self._registry, timeout=PATIENCE_S)) as connection:
            try:
                connection.request("GET", path, headers={"Accept": ", ".join(MANIFESTS)})
                response = connection.getresponse()
                return (response.headers, response.read()) if response.status == 200 else None
            except (OSError, http.client.HTTPException):
                return None
