"""The web service: one ASGI app for the local server, the container and the Ray replica.

This package itself imports little, for commands that do not serve; `create_app` creates the app, `run` serves it.
"""

from likewise.server.model import ServedModel
from likewise.server.server_options import ServerOptions

__all__ = ["ServedModel", "ServerOptions"]
