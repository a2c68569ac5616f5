"""What a model's files would import, call or run when the model is loaded; see `likewise.builder.scan.model`."""
