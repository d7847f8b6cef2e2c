"""A MobileNetV2 with random weights in TensorFlow.js files, and what its layers are defined to give, in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

# Channels of the blocks' outputs, and the blocks that halve the sides, as Keras' MobileNetV2 has them.
WIDTHS = [16, 24, 24, 32, 32, 32, *[64] * 4, *[96] * 3, *[160] * 3, 320]
HALVING = {1, 3, 6, 13}


class Layers:
    """A Keras model as a list of layers, its weights by name in float64, and a walk over both."""

    def __init__(self, layers: list[dict[str, Any]], values: dict[str, np.ndarray]) -> None:
        self.layers, self.values = layers, values

    @classmethod
    def read(cls, folder: Path) -> Layers:
        """Read a published folder: 8-bit weights, one group, one shard."""
        model = json.loads((folder / "model.json").read_text())
        (group,) = model["weightsManifest"]
        data, start, values = (folder / group["paths"][0]).read_bytes(), 0, {}
        for entry in group["weights"]:
            count, small = int(np.prod(entry["shape"])), entry["quantization"]
            raw = np.frombuffer(data, np.uint8, count, start).reshape(entry["shape"])
            values[entry["name"]] = raw * small["scale"] + small["min"]
            start += count
        return cls(model["modelTopology"]["model_config"]["config"]["layers"], values)

    def give(self, view: np.ndarray) -> np.ndarray:
        """Return what the last layer gives of one uint8 view."""
        found: dict[str, np.ndarray] = {}
        for layer in self.layers:
            name, kind, options = layer["name"], layer["class_name"], layer["config"]
            sources = [source[0] for node in layer["inbound_nodes"] for source in node]
            inputs = [found[source] for source in sources] or [view / 255.0]
            found[name] = self._step(name, kind, options, inputs)
        return found[self.layers[-1]["name"]]

    def _step(self, name: str, kind: str, options: dict[str, Any], inputs: list[np.ndarray]) -> np.ndarray:
        rows = inputs[0]
        if kind in ("InputLayer", "Dropout"):
            return rows
        if kind == "ZeroPadding2D":
            return np.pad(rows, (*options["padding"], (0, 0)))
        if kind == "Add":
            return inputs[0] + inputs[1]
        if kind == "ReLU":
            return np.clip(rows, 0, options["max_value"])
        if kind == "AveragePooling2D":
            return rows.mean(axis=(0, 1), keepdims=True)
        if kind == "Flatten":
            return rows.reshape(-1)
        if kind == "BatchNormalization":
            gamma, beta, mean, variance = (
                self.values[f"{name}/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
            )
            return (rows - mean) / np.sqrt(variance + options["epsilon"]) * gamma + beta
        if kind == "Dense":
            out = rows @ self.values[f"{name}/kernel"] + self.values[f"{name}/bias"]
            return np.maximum(out, 0) if options["activation"] == "relu" else np.exp(out) / np.exp(out).sum()
        assert kind in ("Conv2D", "DepthwiseConv2D")
        return self._slide(name, kind == "DepthwiseConv2D", options, rows)

    def _slide(self, name: str, deep: bool, options: dict[str, Any], rows: np.ndarray) -> np.ndarray:
        size, stride = options["kernel_size"][0], options["strides"][0]
        out = -(-len(rows) // stride) if options["padding"] == "same" else (len(rows) - size) // stride + 1
        total = max(0, (out - 1) * stride + size - len(rows)) if options["padding"] == "same" else 0
        rows = np.pad(rows, ((total // 2, total - total // 2),) * 2 + ((0, 0),))
        kernel = self.values[f"{name}/{'depthwise_' if deep else ''}kernel"]
        result: Any = 0.0
        for down in range(size):
            for right in range(size):
                part = rows[down : down + out * stride : stride, right : right + out * stride : stride][:out, :out]
                result = result + (part * kernel[down, right, :, 0] if deep else part @ kernel[down, right])
        return np.asarray(result)


class MadeMobileNet(Layers):
    """All layers of nsfwjs' MobileNetV2 with random weights, in 8 bits; the last bias in float32."""

    def __init__(self, seed: int = 3) -> None:
        super().__init__([], {})
        self.random = np.random.default_rng(seed)
        self.entries: list[dict[str, Any]] = []
        self.data = b""
        self._add("input", "InputLayer", [])
        self._add("Conv1_pad", "ZeroPadding2D", ["input"], padding=[[0, 1], [0, 1]])
        last = self._convolve("Conv1", "bn_Conv1", "Conv1_pad", 3, 32, 3, 2, "valid")
        width = 32
        for number, out in enumerate(WIDTHS):
            block, source, wide = f"block_{number}" if number else "expanded_conv", last, width
            if number:
                wide = 6 * width
                last = self._convolve(f"{block}_expand", f"{block}_expand_BN", last, width, wide, 1)
            stride = 2 if number in HALVING else 1
            if stride == 2:
                self._add(f"{block}_pad", "ZeroPadding2D", [last], padding=[[0, 1], [0, 1]])
                last = f"{block}_pad"
            padding = "valid" if stride == 2 else "same"
            name = f"{block}_depthwise"
            last = self._convolve(name, f"{name}_BN", last, wide, 1, 3, stride, padding, deep=True)
            name = f"{block}_project"
            last = self._convolve(name, f"{name}_BN", last, wide, out, 1, relu=False)
            if stride == 1 and out == width:
                self._add(f"{block}_add", "Add", [source, last])
                last = f"{block}_add"
            width = out
        last = self._convolve("Conv_1", "Conv_1_bn", last, 320, 1280, 1)
        self._add("pool", "AveragePooling2D", [last])
        self._add("flat", "Flatten", ["pool"])
        for name, source, inputs, out in (
            ("dense_1", "flat", 1280, 256),
            ("dense_2", "dense_1", 256, 128),
            ("dense_3", "dense_2", 128, 5),
        ):
            self._add(name, "Dense", [source], activation="softmax" if out == 5 else "relu")
            self._weight(f"{name}/kernel", -1 / inputs**0.5, 1 / inputs**0.5, inputs, out)
            self._weight(f"{name}/bias", -0.3, 0.3, out, bits=32 if out == 5 else 8)

    def write(self, folder: Path) -> Path:
        """Write the two files."""
        folder.mkdir()
        manifest = [{"paths": ["group1-shard1of1"], "weights": self.entries}]
        (folder / "model.json").write_text(json.dumps({"weightsManifest": manifest}))
        (folder / "group1-shard1of1").write_bytes(self.data)
        return folder

    def _add(self, name: str, kind: str, inputs: list[str], **config: Any) -> None:
        nodes = [[[source, 0, 0, {}] for source in inputs]] if inputs else []
        self.layers.append({"name": name, "class_name": kind, "config": config, "inbound_nodes": nodes})

    def _weight(self, name: str, low: float, high: float, *shape: int, bits: int = 8) -> None:
        entry: dict[str, Any] = {"name": name, "shape": list(shape), "dtype": "float32"}
        if bits == 8:
            raw, scale = self.random.integers(0, 256, shape, np.uint8), (high - low) / 255
            entry["quantization"] = {"dtype": "uint8", "scale": scale, "min": low}
            self.values[name], data = raw * scale + low, raw.tobytes()
        else:
            values = self.random.uniform(low, high, shape).astype("<f4")
            self.values[name], data = values.astype(np.float64), values.tobytes()
        self.entries.append(entry)
        self.data += data

    def _convolve(
        self,
        name: str,
        norm: str,
        source: str,
        inputs: int,
        out: int,
        size: int,
        stride: int = 1,
        padding: str = "same",
        *,
        deep: bool = False,
        relu: bool = True,
    ) -> str:
        kind = "DepthwiseConv2D" if deep else "Conv2D"
        self._add(name, kind, [source], kernel_size=[size, size], strides=[stride, stride], padding=padding)
        fan = size * size * (1 if deep else inputs)
        reach = (3 / fan) ** 0.5
        self._weight(f"{name}/{'depthwise_' if deep else ''}kernel", -reach, reach, size, size, inputs, out)
        self._add(norm, "BatchNormalization", [name], epsilon=0.001)
        parts = {"gamma": (0.5, 2), "beta": (-0.3, 1), "moving_mean": (-0.5, 0.5), "moving_variance": (0.1, 2)}
        for part, (low, high) in parts.items():
            self._weight(f"{norm}/{part}", low, high, inputs if deep else out)
        if relu:
            self._add(f"{name}_relu", "ReLU", [norm], max_value=6.0)
        return f"{name}_relu" if relu else norm
