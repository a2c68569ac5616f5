"""The HTML pages of the service: the page at `/`, and `/docs`."""

from likewise.server.pages.page import ASSETS, CSP, DOCS, curl_line, facts, landing_page

__all__ = ["ASSETS", "CSP", "DOCS", "curl_line", "facts", "landing_page"]
