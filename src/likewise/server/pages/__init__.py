"""What the service says of itself to people: the page at `/`, and `/docs`."""

from likewise.server.pages.docs_page import docs_page
from likewise.server.pages.page import CSP, curl_line, landing_page

__all__ = ["CSP", "curl_line", "docs_page", "landing_page"]
