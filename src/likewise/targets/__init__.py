"""Places where a bundle answers; each room imports its vendor's library lazily, and only there."""
