"""The OpenAPI document of the service, with the model's own signature and examples."""

from likewise.server.description.openapi import describe

__all__ = ["describe"]
