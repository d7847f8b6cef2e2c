"""A drawn policy and the signals it may read, for the tests of policies."""

import math

import numpy as np

from pipeline.policy import SignalSpec

NAN, INF = math.nan, math.inf
HEAD = "laion-nsfw-l14@1"
CHILD = "minor-zero-shot@1"
DISTANCES = ("list.csam.pdq_distance", "list.other.pdq_distance")
KNOWN = (
    SignalSpec("list.csam.exact", "high", ("list.csam.exact#md5+sha1+sha256",), None, True),
    SignalSpec("list.csam.pdq_distance", "low", ("list.csam.pdq_distance#pdq:fullres",), 31, True),
    SignalSpec("list.other.exact", "high", ("list.other.exact#md5+sha1+sha256",), None, False),
    SignalSpec("list.other.pdq_distance", "low", ("list.other.pdq_distance#pdq:fullres",), 31, False),
    SignalSpec("pdq.usable", "low", ("pdq.usable#pdq:fullres",), None, True),
    SignalSpec(HEAD, "high", (f"{HEAD}#a1b2c3d4",), None, True),
    SignalSpec(CHILD, "high", (f"{CHILD}#00ff00ff",), None, True),
    SignalSpec("caption.minor", "high", ("caption.minor#77",), None, True),
)
# What a run with LAION's metadata columns and text terms adds, and a screen of a table.
METADATA = (
    *(SignalSpec(name, "high", (f"{name}#1",), None, True) for name in ("meta.punsafe", "meta.nsfw", "url.minor")),
    SignalSpec("url.usable", "low", ("url",), None, True),
)
HARMLESS = {
    "list.csam.exact": 0.0,
    "list.csam.pdq_distance": INF,
    "list.other.exact": 0.0,
    "list.other.pdq_distance": INF,
    "pdq.usable": 1.0,
    HEAD: 0.01,
    CHILD: 0.01,
    "caption.minor": 0.0,
}
POLICY = """
name = "drawn"
required = ["sexual"]
[signal.sexual]
from = ["laion-nsfw-l14@1"]
[signal.minor]
from = ["minor-zero-shot@1", "caption.minor"]
[[rule]]
id = "listed"
when = "list.csam.exact >= 1"
action = "SEAL"
[[rule]]
id = "both"
when = "sexual >= 0.10 and minor >= 0.20"
action = "REMOVE"
[[rule]]
id = "sexual"
when = "sexual >= 0.45"
action = "REMOVE"
[[rule]]
id = "plain"
when = "pdq.usable < 1"
action = "QUARANTINE"
[sensitive]
rules = ["both"]
[separation]
never_kept = ["sexual >= 0.45"]
"""


def column_set(**values):
    """One sample: every signal harmless but those named."""
    return {name: np.array([values.get(name, value)], np.float32) for name, value in HARMLESS.items()}
