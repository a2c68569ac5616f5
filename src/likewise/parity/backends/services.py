"""Backends that answer requests: URLs, deployments, and an image or a Ray Serve application started for the purpose."""

from __future__ import annotations

import http.client
import secrets
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import unquote_to_bytes, urlsplit

from likewise import deployments
from likewise.core.errors import InputNotFound, TargetUnavailable
from likewise.core.proxies import OPENER, proxied
from likewise.core.uris import redacted
from likewise.parity.backends.requests import Post, predict_by_requests
from likewise.parity.comparison import Comparison
from likewise.parity.verify_options import VerifyOptions
from likewise.server.auth import authorization
from likewise.server.port import listen
from likewise.targets.base import Receipt, Response
from likewise.targets.http_client import Served, served_by

TIMEOUT_S = 120.0  # of a request to a container
RAY = "ray-serve"


def predict_at(url: str, options: VerifyOptions, comparison: Comparison) -> None:
    """Send requests to a URL.

    It is used unchanged if it has a path (Ray serves deployments at a route), else `/invocations` is added.  User
    information in it is sent as Basic credentials, unless there is a token file.
    """
    user = urlsplit(url).netloc.rpartition("@")[0]
    basic = {"Authorization": f"Basic {b64encode(unquote_to_bytes(user)).decode()}"} if user else {}
    credentials = {**basic, **authorization(options.token_file)}
    _predict_at(url.replace(f"{user}@", "", 1) if user else url, credentials, options.timeout_s, comparison)


def predict_deployed(deployment: tuple[Receipt, Post], comparison: Comparison) -> None:
    """Send requests to a deployment."""
    receipt, post = deployment
    comparison.served = Served(receipt.model.digest, receipt.model.build or None)
    predict_by_requests(comparison, post, receipt.name)


def predict_in_container(image: str, comparison: Comparison) -> None:
    """Run an image, of Likewise's store, of Docker or Podman, or of a registry, and stop it again."""
    from likewise.images.containers import default_network, find_engine, load, start
    from likewise.images.store import Store

    engine = find_engine()
    with suppress(InputNotFound):  # not in the store of this user: the program has it, or fetches it
        image = load(Store(), image, engine)
    with listen("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
    running = start(engine, image, port, network=default_network(engine))
    try:
        _predict_at(running.url, {}, TIMEOUT_S, comparison)
    finally:
        running.stop()


def predict_on_ray(comparison: Comparison) -> None:
    """Deploy the bundle to Ray Serve, on the cluster that `ray-serve` finds, and delete it again."""
    name = f"verify-{secrets.token_hex(4)}"
    with deployments.temporary(comparison.bundle.spec(), RAY, name) as receipt:
        predict_deployed((receipt, deployments.poster(receipt)), comparison)


def _predict_at(
    url: str,
    credentials: Mapping[str, str],
    timeout_s: float,
    comparison: Comparison,
) -> None:
    address = url if urlsplit(url).path.strip("/") else f"{url.rstrip('/')}/invocations"

    def post(body: bytes) -> Response:
        response, comparison.served = exchange(address, credentials, timeout_s, body, comparison.served)
        return response

    predict_by_requests(comparison, post, redacted(url) + proxied(url)[0])


def exchange(
    url: str,
    credentials: Mapping[str, str],
    timeout_s: float,
    body: bytes,
    served: Served,
) -> tuple[Response, Served]:
    """The response, and the digests in its headers, else `served`; TargetUnavailable if there is none."""
    request = urllib.request.Request(url, body, {"Content-Type": deployments.JSON})  # noqa: S310  `backend` checks the scheme
    for name, value in credentials.items():
        request.add_unredirected_header(name, value)  # not sent to a host that this one redirects to
    try:
        try:
            with OPENER.open(request, timeout=timeout_s) as response:
                return Response(response.status, deployments.JSON, response.read()), served_by(response.headers)
        except urllib.error.HTTPError as error:
            return Response(error.code, deployments.JSON, error.read()), served
    except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: an invalid URL
        invalid = isinstance(error, ValueError | http.client.InvalidURL)  # whose message may quote a password
        reason = "it is not a valid URL" if invalid else error
        via, advice = ("", "") if invalid else proxied(url)
        raise TargetUnavailable(
            f"no response from {url}{via}: {reason}", remedy=f"check that the service is running, and its URL{advice}"
        ) from error
