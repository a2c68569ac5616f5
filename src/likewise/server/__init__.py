"""The web service: one ASGI app for the local server, the container and the Ray replica.

This package imports what a command needs that serves nothing; `app.create_app` makes the app, and `run.run` serves it.
"""

from likewise.server.model import ServedModel
from likewise.server.server_options import ServerOptions

__all__ = ["ServedModel", "ServerOptions"]
