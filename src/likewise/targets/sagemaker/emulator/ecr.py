"""ECR by moto in front of a real registry: responses contain that registry's address and its images."""

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

TIMEOUT_S = 10.0
MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_IMAGE_OPERATIONS = frozenset({"DescribeImages", "ListImages", "BatchGetImage", "BatchDeleteImage"})


class Ecr:
    """A WSGI application. registry: HOST:PORT of a registry on loopback, which uses plain HTTP."""

    def __init__(self, moto: Any, account: Account, registry: str) -> None:
        self._moto = moto
        self._account = account
        self._registry = registry
        self._aws_host = f"{ID}.dkr.ecr.{account.region}.amazonaws.com"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ, populate_request=False)
        if request.headers.get("X-Amz-Target", "").rpartition(".")[2] in _IMAGE_OPERATIONS:
            body = request.get_data()
            environ["wsgi.input"] = io.BytesIO(body)
            self._register_images(str(json.loads(body or b"{}").get("repositoryName", "")))
        response = Response.from_app(self._moto, environ)
        text = response.get_data(as_text=True).replace(f"https://{self._aws_host}", f"http://{self._registry}")
        response.set_data(text.replace(self._aws_host, self._registry))
        return response(environ, start_response)

    def _register_images(self, repository: str) -> None:
        """Add the registry's images of the repository to moto."""
        tags = self._get(f"/v2/{repository}/tags/list")
        for tag in (json.loads(tags[1]).get("tags") or []) if tags else []:
            if response := self._get(f"/v2/{repository}/manifests/{tag}"):
                headers, manifest = response
                self._account.register_image(
                    repositoryName=repository,
                    imageTag=tag,
                    imageManifest=manifest.decode(),
                    imageManifestMediaType=headers.get("Content-Type", MANIFESTS[0]),
                    imageDigest=headers.get("Docker-Content-Digest", ""),
                )

    def _get(self, path: str) -> tuple[http.client.HTTPMessage, bytes] | None:
        """The registry's response, headers and body; None unless its status is 200."""
        with closing(http.client.HTTPConnection(self._registry, timeout=TIMEOUT_S)) as connection:
            try:
                connection.request("GET", path, headers={"Accept": ", ".join(MANIFESTS)})
                response = connection.getresponse()
                return (response.headers, response.read()) if response.status == 200 else None
            except (OSError, http.client.HTTPException):
                return None
