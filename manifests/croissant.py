"""`croissant.json`: a release described for those who look for data sets (Croissant 1.1, RAI 1.0).

Owns the document. Every field that the specification requires is there; most validators do not ask for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from manifests.anchors import split_note

if TYPE_CHECKING:
    from manifests.attest import ReleaseFacts

_CROISSANT = "http://mlcommons.org/croissant/"
_OURS = (
    "arrayShape citeAs column containedIn equivalentProperty extract field fileObject fileProperty fileSet "
    "format includes isArray isLiveDataset jsonPath key md5 parentField path recordSet references regex "
    "repeated replace samplingRate separator source subField transform"
)
_CONTEXT = {
    **{name: f"cr:{name}" for name in _OURS.split()},
    "@language": "en",
    "@vocab": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "cr": _CROISSANT,
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    "prov": "http://www.w3.org/ns/prov#",
    "rai": f"{_CROISSANT}RAI/",
    "sc": "https://schema.org/",
}
_MEDIA_TYPES = {
    "json": "application/json", "npy": "application/octet-stream", "parquet": "application/x-parquet",
    "tar": "application/x-tar", "html": "text/html",
}  # fmt: skip
LIMITS = (
    "Says what was done, not that the data are clean, safe or compliant: classifiers miss, lists are incomplete. "
    "Unlisted or altered material may remain."
)


@dataclass(frozen=True, slots=True)
class Dataset:
    """What only its owner can say of a data set."""

    name: str
    description: str
    url: str
    license: str
    creator: str

    def __post_init__(self) -> None:
        if lacking := [name for name in self.__slots__ if not getattr(self, name).strip()]:
            raise ValueError(f"{', '.join(lacking)}: a description of a data set must say it")


def croissant(facts: ReleaseFacts, dataset: Dataset) -> dict[str, Any]:
    """Return the description of a release."""
    counts = facts.counts()
    _, log = split_note(facts.checkpoint)
    made = f"shardscrub {facts.tool_version}, settle {facts.number:04d}"
    done = (
        f"{made}: {counts['in']} samples in, {counts['kept']} kept, {counts['not_kept']} not kept; of these, "
        f"{counts['faults']} could not be judged in full. Decide plan sha256:{facts.decide_plan}, policy "
        f"sha256:{facts.policy}, examine plan sha256:{facts.examine_plan}. Log {log.origin}, {log.size} entries."
    )
    stamps = f" Made with {', '.join(facts.stamps)}." if facts.stamps else ""
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [f"{_CROISSANT}1.1", f"{_CROISSANT}RAI/1.0"],
        "name": dataset.name,
        "description": dataset.description,
        "url": dataset.url,
        "license": dataset.license,
        "creator": {"@type": "sc:Organization", "name": dataset.creator},
        "citeAs": f"{dataset.creator}: {dataset.name}, release {facts.number:04d}, {dataset.url}",
        "datePublished": facts.finished[:10],
        "version": f"{facts.number}.0.0",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": file.name,
                "name": file.name,
                "contentUrl": file.name,
                "contentSize": f"{file.size} B",
                "encodingFormat": _MEDIA_TYPES.get(file.name.rpartition(".")[2], "application/octet-stream"),
                "sha256": file.sha256,
            }
            for file in facts.files
        ],
        "prov:wasGeneratedBy": {"@type": "prov:Activity", "name": made, "prov:endedAtTime": facts.finished},
        "rai:dataPreprocessingProtocol": done,
        "rai:dataLimitations": LIMITS + stamps,
        "rai:personalSensitiveInformation": "Captions and URLs are the crawl's; nothing looked for personal data.",
        "rai:dataReleaseMaintenancePlan": "A later release of the collection may hold less; each cites the log.",
    }
