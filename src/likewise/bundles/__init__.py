"""The bundle's format: a self-contained, content-addressed folder, verified when it is opened."""
