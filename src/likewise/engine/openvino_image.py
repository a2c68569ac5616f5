"""What an image for engines that run OpenVINO on the CPU does not need."""

from __future__ import annotations

from likewise.engine.kinds import ImageContents

_DEVICES = ("intel_gpu", "intel_npu", "auto_plugin", "hetero_plugin")
_FORMATS = ("onnx", "tensorflow", "tensorflow_lite", "pytorch", "paddle", "jax", "gguf")
IMAGE = ImageContents(
    files={
        "openvino": (
            *(f"openvino/libs/*{name}*" for name in _DEVICES),
            *(f"openvino/libs/*_{name}_frontend*" for name in _FORMATS),
            *(f"openvino/frontend/{name}/*" for name in ("onnx", "tensorflow", "pytorch", "paddle", "jax")),
            *("openvino/libs/cache.json", "openvino/libs/libopenvino_c.so*", "openvino/libs/libtbbmalloc_proxy*"),
            *("openvino/tools/*", "openvino/torch/*", "openvino/cmake/*", "openvino/include/*", "*.pc", "*.pyi"),
        ),
        "numpy": (
            *("*/tests/*", "*.pyi", "*.a", "numpy/f2py/*", "numpy/distutils/*"),
            *("numpy/_core/include/*", "numpy/random/*"),
        ),
        "uvloop": ("*.pyx", "*.pxd", "*.pxi", "*.pyi", "*.c", "*.h"),
        "httptools": ("*.pyx", "*.pxd", "*.pyi", "*.c", "*.h"),
        "tokenizers": ("*.pyi",),
    },
    dependencies={
        "tokenizers": frozenset({"huggingface-hub"}),  # downloads
        "openvino": frozenset({"openvino-telemetry"}),  # reports conversions to Intel
    },
)
