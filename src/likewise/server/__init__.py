"""The web service: one ASGI app for the local server, the container and the Ray replica."""

from likewise.server.app import create_app
from likewise.server.codec import Codec, Encoded
from likewise.server.model import ServedModel
from likewise.server.options import ServerOptions
from likewise.server.pages import curl_line
from likewise.server.run import run

__all__ = ["Codec", "Encoded", "ServedModel", "ServerOptions", "create_app", "curl_line", "run"]
