"""The bundle format: a self-contained, content-addressed folder that is verified when it is opened."""
