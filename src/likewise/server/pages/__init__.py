"""The HTML pages of the service: the landing page at `/`, and `/docs`."""

from likewise.server.pages.page import ASSETS, CSP, DOCS, DOCS_CSP, curl_line, landing_page

__all__ = ["ASSETS", "CSP", "DOCS", "DOCS_CSP", "curl_line", "landing_page"]
