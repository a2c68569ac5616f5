"""What the service says of itself to machines: OpenAPI, with the model's own signature and examples."""

from likewise.server.description.openapi import describe

__all__ = ["describe"]
