"""What a release says of itself, read by software of others: accepted as it is, refused once it was changed."""

from __future__ import annotations

import base64
import hashlib
import json
import warnings
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf.json_format import ParseDict
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from manifests.attest import (
    CROISSANT,
    FOLDER_SIGNATURE,
    MATERIALS,
    PROPERTY,
    STATEMENTS,
    ReleaseFacts,
    write_attestations,
)
from manifests.audit.note import Checkpoint, sign_note
from manifests.commits import FileDigest
from manifests.croissant import Dataset
from manifests.cyclonedx import UsedModel
from manifests.signers import FileSigner, SignerError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # theirs, at import
    import mlcroissant
    import model_signing.signing
    import model_signing.verifying

FILES = {
    "manifest/00000.parquet": b"rows",
    "shards/00000.tar": b"tar",
    "summary.json": b"{}",
    "uids.npy": b"uids",
}
# What the Croissant specification requires; mlcroissant asks for less.
REQUIRED = {
    "@context", "@type", "conformsTo", "name", "description", "url", "license", "creator", "datePublished",
}  # fmt: skip
REQUIRED_OF_FILES = {"@type", "@id", "name", "contentUrl", "encodingFormat", "sha256"}
MODELS = (
    UsedModel("a-clip@1#01234567/bicubic224/fp32", "01234567" * 8, is_folder=True, licence="MIT"),
    UsedModel("a-net@12#89abcdef/squash224/fp32", "89abcdef" * 8, is_folder=False, licence="Apple, research only"),
    UsedModel("our-head@2#fedcba98", "fedcba98" * 8, is_folder=False, licence=""),
)
DATASET = Dataset("Birds", "Pictures of birds.", "https://example.org/birds", "CC-BY-4.0", "Example Org")


def log_signer() -> FileSigner:
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    return FileSigner("example.org/log", key.public_key().public_bytes_raw(), key)


@pytest.fixture
def release(tmp_path):
    for name, data in FILES.items():
        path = tmp_path / "release" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "release"


@pytest.fixture
def facts(tmp_path):
    signer, digest = log_signer(), "0123456789abcdef" * 4
    key = ec.generate_private_key(ec.SECP256R1())
    path = tmp_path / "model.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "model.pub").write_bytes(public)
    return ReleaseFacts(
        number=7, files=tuple(FileDigest.of(name, data) for name, data in FILES.items()), samples=100, kept=60,
        faults=3, examine_plan=digest, decide_plan=digest, policy=digest, stamps=("unsafe_stand_in_models",),
        checkpoint=sign_note(Checkpoint(signer.name, 12, bytes(32)).text(), signer), tool_version="1.2.3",
        started="2026-11-20T08:00:00Z", finished="2026-11-23T09:30:00Z", dataset=DATASET, model_key=path,
    )  # fmt: skip


def envelopes(release):
    return [json.loads(line) for line in (release / STATEMENTS).read_bytes().splitlines()]


def key_of(envelope) -> dict[str, SSlibKey]:
    keyid = envelope["signatures"][0]["keyid"]
    public = {"public": log_signer().public_key.hex()}
    return [SSlibKey(keyid, "ed25519", "ed25519", public)]


def test_the_same_facts_and_key_give_the_same_bytes_and_every_file_has_its_digest(release, facts):
    written = write_attestations(release, facts, log_signer())
    before = {file.name: (release / file.name).read_bytes() for file in written}
    assert list(before) == [CROISSANT, STATEMENTS, FOLDER_SIGNATURE]
    assert all(FileDigest.of(name, data) in written for name, data in before.items())
    assert write_attestations(release, facts, log_signer()) == written
    assert {name: (release / name).read_bytes() for name in before} == before
    bare = replace(facts, dataset=None, model_key=None)
    assert [file.name for file in write_attestations(release, bare, log_signer())] == [STATEMENTS]


def test_in_toto_takes_the_statements_and_securesystemslib_their_envelopes(release, facts):
    write_attestations(release, facts, log_signer())
    kinds, predicates = [], []
    for envelope in envelopes(release):
        opened = Envelope.from_dict(json.loads(json.dumps(envelope)))
        assert opened.payload_type == "application/vnd.in-toto+json"
        opened.verify(key_of(envelope), 1)
        raw = json.loads(opened.payload)
        statement = Statement.copy_from_pb(ParseDict(raw, StatementMessage()))
        statement.validate()
        kinds.append(statement.pb.predicate_type)
        predicates.append(raw["predicate"])
        subjects = {one["name"]: one["digest"]["sha256"] for one in raw["subject"]}
        text = (release / CROISSANT).read_bytes()
        expected = {name: hashlib.sha256(data).hexdigest() for name, data in {**FILES, CROISSANT: text}.items()}
        assert subjects == expected
    assert kinds == ["https://slsa.dev/provenance/v1", "https://in-toto.io/attestation/svr/v0.2"]
    provenance, result = predicates
    parsed = ParseDict(provenance, Provenance())  # refuses what SLSA does not name
    assert parsed.run_details.metadata.started_on.ToJsonString() == facts.started
    assert provenance["runDetails"]["byproducts"][0]["annotations"] == {
        "in": 100, "kept": 60, "not_kept": 40, "faults": 3,
    }  # fmt: skip
    assert result["properties"] == [PROPERTY]
    assert result["verifier"]["policies"] == [{"name": "policy", "digest": {"sha256": facts.policy}}]
    for cited in (provenance["buildDefinition"]["resolvedDependencies"][-1], result["shardscrub_checkpoint"]):
        assert base64.b64decode(cited["content"]) == facts.checkpoint
    assert "SLSA_" not in json.dumps(result)


def test_securesystemslib_refuses_a_changed_statement_and_one_of_another_key(release, facts):
    write_attestations(release, facts, log_signer())
    for envelope in envelopes(release):
        payload = base64.b64decode(envelope["payload"])
        text = payload.replace(b"uids.npy", b"uidz.npy")
        assert text != payload
        for changed in (
            {**envelope, "payload": base64.b64encode(text).decode()},
            {**envelope, "payloadType": "text/plain"},
        ):
            with pytest.raises(VerificationError):
                Envelope.from_dict(json.loads(json.dumps(changed))).verify(key_of(changed), 1)
        stranger = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
        key = SSlibKey(envelope["signatures"][0]["keyid"], "ed25519", "ed25519", {"public": stranger})
        with pytest.raises(VerificationError):
            Envelope.from_dict(json.loads(json.dumps(envelope))).verify([key], 1)


def test_mlcroissant_takes_the_description_and_nothing_that_is_required_is_missing(release, facts, caplog):
    write_attestations(release, facts, log_signer())
    described = json.loads((release / CROISSANT).read_bytes())
    assert {name for name in REQUIRED if not described.get(name)} == set()
    for file in described["distribution"]:
        assert {name for name in REQUIRED_OF_FILES if not file.get(name)} == set()
        assert file["sha256"] == hashlib.sha256(FILES[file["@id"]]).hexdigest()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = mlcroissant.Dataset(str(release / CROISSANT))
        assert not dataset.metadata.issues.errors
        assert not dataset.metadata.issues.warnings
        assert "60 kept" in str(dataset.metadata.to_json()["rai:dataPreprocessingProtocol"])
        for lacking in ("conformsTo", "sha256"):
            worse = json.loads((release / CROISSANT).read_bytes())
            (worse["distribution"][0] if lacking == "sha256" else worse).pop(lacking)
            with pytest.raises(mlcroissant.ValidationError):
                mlcroissant.Dataset(worse)
    assert "not standard" not in caplog.text
    with pytest.raises(ValueError, match="license"):
        replace(DATASET, license=" ")


def test_cyclonedx_takes_the_bill_of_materials_and_refuses_it_without_what_it_asks_for(release, facts):
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    for about in (replace(facts, models=MODELS), replace(facts, models=(), dataset=None)):
        assert MATERIALS in [file.name for file in write_attestations(release, about, log_signer())]
        text = (release / MATERIALS).read_text()
        assert validator.validate_str(text) is None
        assert write_attestations(release, about, log_signer())
        assert (release / MATERIALS).read_text() == text
    write_attestations(release, replace(facts, models=MODELS), log_signer())
    bom = json.loads((release / MATERIALS).read_bytes())
    assert [(one["name"], one["version"], one.get("licenses")) for one in bom["components"]] == [
        ("a-clip", "1", [{"license": {"id": "MIT"}}]),
        ("a-net", "12", [{"license": {"name": "Apple, research only"}}]),
        ("our-head", "2", None),
    ]
    assert [one.get("hashes", [{}])[0].get("content") for one in bom["components"]] == [
        None, MODELS[1].sha256, MODELS[2].sha256,
    ]  # fmt: skip
    assert MODELS[0].sha256 in {one["value"] for one in bom["components"][0]["properties"]}
    told = {one["name"]: one["value"] for one in bom["metadata"]["component"]["properties"]}
    assert [told[f"shardscrub:{name}"] for name in ("in", "kept", "not_kept", "faults")] == ["100", "60", "40", "3"]
    assert bom["dependencies"][0]["dependsOn"] == [one.full_name for one in MODELS]
    del bom["components"][1]["name"]
    assert validator.validate_str(json.dumps(bom)) is not None


def test_model_signing_takes_the_folder_and_refuses_it_changed_or_with_a_file_more(release, facts, tmp_path):
    write_attestations(release, facts, log_signer())

    def check() -> None:
        config = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=tmp_path / "model.pub")
        config.verify(release, release / FOLDER_SIGNATURE)

    check()
    (release / "more").write_bytes(b"")
    with pytest.raises(ValueError, match="mismatch"):
        check()
    (release / "more").unlink()
    (release / "summary.json").write_bytes(b"[]")
    with pytest.raises(ValueError, match="mismatch"):
        check()


def test_a_folder_is_not_signed_with_a_key_that_others_read(release, facts):
    facts.model_key.chmod(0o644)
    with pytest.raises(SignerError, match="expected mode 0600"):
        write_attestations(release, facts, log_signer())


def test_nothing_but_in_kept_not_kept_and_faults_is_told(release, facts):
    write_attestations(release, replace(facts, models=MODELS), log_signer())
    texts = [base64.b64decode(one["payload"]).decode() for one in envelopes(release)]
    for text in [*texts, (release / CROISSANT).read_text(), (release / MATERIALS).read_text()]:
        for word in ("withheld", "quarantine", "removed", "list.", "threshold", "score"):
            assert word not in text.lower()
