"""Compiles the torch modules that a model loads by itself, and lets them compute with OpenVINO; its code is unchanged.

While such a model loads, the modules that transformers and MLflow return are recognized by their weights, and their
`forward` is replaced.  Calls that the compiled graph does not cover are computed by the original, and counted.
"""
