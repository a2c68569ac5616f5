"""The backends to which bundles are deployed; each subpackage imports its vendor's library lazily."""
