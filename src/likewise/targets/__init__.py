"""Where bundles are deployed; each package imports its vendor's library lazily, and only there."""
