"""Archives of a bundle and its Python environment for machines without Likewise or a network, and their unpacking."""
