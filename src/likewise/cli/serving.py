"""The command `serve`."""

from __future__ import annotations

from typing import Annotated

from likewise import api
from likewise.cli import end_in_time
from likewise.cli.arguments import Choice, opened
from likewise.cli.flags import argument, flag
from likewise.cli.screen import Screen
from likewise.core.errors import WrongUsage
from likewise.server import ServerOptions


def serve(
    model: Annotated[str | None, argument("MODEL", "Path of a bundle, or MLflow model URI, as for `bundle`.")] = None,
    model_uri: Annotated[
        str | None,
        flag("--model-uri -m MODEL", "Same as the argument MODEL, for compatibility with `mlflow models serve`."),
    ] = None,
    *,
    options: ServerOptions,
    choice: Choice,
    screen: Screen,
) -> None:
    """Serve MODEL over HTTP in the foreground until Ctrl-C or SIGTERM. Requests in flight are completed first."""
    end_in_time(options.end_s)
    if options.log_format == "json":
        screen.log_as_json()
    if (model is None) == (model_uri is None):
        raise WrongUsage("serve takes exactly one MODEL", remedy="run likewise serve MODEL, or likewise serve -m MODEL")
    _serve(opened(str(model or model_uri), choice, screen), options, screen)


def _serve(bundle: api.Bundle, options: ServerOptions, screen: Screen) -> None:
    def listening(url: str) -> None:
        screen.note(f"serving {bundle.build[:19]}… at {url} (Ctrl-C to stop); loading the model")

    def ready(url: str) -> None:
        from likewise.server.pages import curl_line  # the start does not wait for this import
        from likewise.serving import served_model

        if screen.as_json:
            screen.json({"url": url, "bundle": bundle.digest, "build": bundle.build})
        else:
            model = served_model(bundle)
            if model.example or model.signature.inputs:
                screen.note(f"ready; open {url}/ in a browser, or run:", command=curl_line(model, url))
            else:
                screen.note(f"ready; POST {url}/invocations takes the columns that the model was trained with")

    api.serve(bundle, options=options, listening=listening, ready=ready)
