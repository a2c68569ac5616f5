"""What a bundle needs on a machine that has neither our package nor a network: archives, and how they are unpacked."""
