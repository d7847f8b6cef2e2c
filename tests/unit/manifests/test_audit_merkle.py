"""Trees and their proofs: the fast forms agree with the definitions, and with vectors of others."""

from __future__ import annotations

import base64
import hashlib
import json

import audit_kit
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.audit.merkle import (
    EMPTY_ROOT,
    CompactRange,
    ProofError,
    check_consistency,
    check_inclusion,
    leaf_hash,
    nodes_of,
    prove_consistency,
    prove_inclusion,
    root_of,
)

LEAVES = [leaf_hash(b"%d" % number) for number in range(140)]
SIZES = st.integers(1, len(LEAVES))


def refused(check, *arguments):
    try:
        check(*arguments)
    except ProofError:
        return True
    return False


def raw(text):
    return base64.b64decode(text or "")


@pytest.mark.shared_data
def test_all_vectors_of_others_are_taken_or_refused_as_they_say(shared_data):
    outcomes = []
    for path in (shared_data / "merkle").rglob("*.json"):
        vector = json.loads(path.read_text())
        proof = [raw(one) for one in vector["proof"] or []]
        if "leafIdx" in vector:
            places = (vector["leafIdx"], vector["treeSize"])
            wrong = refused(check_inclusion, raw(vector["leafHash"]), *places, proof, raw(vector["root"]))
        else:
            roots = (vector["size1"], raw(vector["root1"]), vector["size2"], raw(vector["root2"]))
            wrong = refused(check_consistency, *roots, proof)
        outcomes.append((wrong == vector["wantErr"], path.name))
    assert len(outcomes) == 196
    assert [name for right, name in outcomes if not right] == []


@given(SIZES, st.data())
def test_roots_and_proofs_are_those_that_rfc_6962_defines(size, data):
    leaves, node = LEAVES[:size], nodes_of(LEAVES)
    index, older = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    root = root_of(leaves)
    assert root == audit_kit.root_of(leaves)
    inclusion, consistency = prove_inclusion(index, size, node), prove_consistency(older, size, node)
    assert inclusion == audit_kit.path_of(index, leaves)
    assert consistency == audit_kit.subproof_of(older, leaves)
    check_inclusion(leaves[index], index, size, inclusion, root)
    check_consistency(older, root_of(leaves[:older]), size, root, consistency)


@given(SIZES, st.data())
def test_no_other_place_hash_or_length_is_proved(size, data):
    index, older = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    node, root, old_root = nodes_of(LEAVES), root_of(LEAVES[:size]), root_of(LEAVES[:older])
    proof = prove_inclusion(index, size, node)
    other = data.draw(st.integers(0, size + 3).filter(lambda one: one != index))
    assert refused(check_inclusion, LEAVES[index], other, size, proof, root)
    assert refused(check_inclusion, LEAVES[index], index, size, [*proof, root], root)
    assert refused(check_inclusion, LEAVES[index], index, size, [], root) == bool(proof)
    proof = prove_consistency(older, size, node)
    for at in range(len(proof)):
        spoilt = [*proof[:at], hashlib.sha256(proof[at]).digest(), *proof[at + 1 :]]
        assert refused(check_consistency, older, old_root, size, root, spoilt)
        assert refused(check_consistency, older, old_root, size, root, [*proof[:at], *proof[at + 1 :]])
    assert refused(check_consistency, older, old_root, size, root, [*proof, root])
    assert refused(check_consistency, size, root, older, old_root, proof) == (size != older)


@given(st.integers(0, 140), st.integers(0, 140))
def test_a_range_that_goes_on_from_nodes_grows_as_one_from_the_start(begin, end):
    tree = CompactRange(begin, nodes_of(LEAVES))
    for leaf in LEAVES[begin:end]:
        tree.append(leaf)
    assert (tree.size, tree.root()) == (max(begin, end), root_of(LEAVES[: max(begin, end)]))


def test_what_an_append_completes_is_the_subtrees_that_end_there():
    tree, node = CompactRange(), nodes_of(LEAVES)
    for size, leaf in enumerate(LEAVES, start=1):
        levels = [level for level in range(8) if size % (1 << level) == 0]
        assert tree.append(leaf) == [node(level, (size >> level) - 1) for level in levels]


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_hash_that_is_not_32_bytes_is_refused_wherever_it_stands(length):
    short, root = bytes(length), root_of(LEAVES[:3])
    proof = prove_inclusion(2, 3, nodes_of(LEAVES))
    for leaf, hashes, end in ((short, proof, root), (LEAVES[2], [short], root), (LEAVES[2], proof, short)):
        with pytest.raises(ProofError, match="not 32 bytes"):
            check_inclusion(leaf, 2, 3, hashes, end)
    with pytest.raises(ProofError, match="not 32 bytes"):
        check_consistency(2, short, 3, root, [LEAVES[2]])
    with pytest.raises(ProofError, match="not 32 bytes"):
        check_consistency(2, root_of(LEAVES[:2]), 3, root, [short])


def test_a_proof_that_goes_on_above_the_root_is_refused():
    for size in (1, 2, 3, 5):
        leaves, node = LEAVES[:size], nodes_of(LEAVES)
        above = hashlib.sha256(b"\1" + LEAVES[9] + root_of(leaves)).digest()
        assert refused(
            check_inclusion, leaves[-1], size - 1, size, [*prove_inclusion(size - 1, size, node), LEAVES[9]], above
        )
    first, second = LEAVES[:2]
    above = hashlib.sha256(b"\1" + LEAVES[9] + root_of(LEAVES[:2])).digest()
    assert refused(check_consistency, 1, first, 2, above, [second, LEAVES[9]])


def test_nothing_is_proved_from_an_empty_log_nor_in_one():
    for size in (0, 1, 3):
        assert refused(check_consistency, 0, EMPTY_ROOT, size, root_of(LEAVES[:size]), [])
        assert refused(prove_consistency, 0, size, nodes_of(LEAVES))
    assert refused(prove_consistency, 3, 2, nodes_of(LEAVES))
    for index, size in ((0, 0), (3, 3), (-1, 3), (-2, 3)):
        assert refused(prove_inclusion, index, size, nodes_of(LEAVES))
        assert refused(check_inclusion, LEAVES[0], index, size, [], LEAVES[0])
