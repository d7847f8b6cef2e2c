"""The fast digest of identities against the slow one, with every kind of key."""

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.decisions import digest_identities
from manifests.records import identities_digest

PLAIN = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
KEYS = st.lists(PLAIN | st.text(max_size=8, alphabet=st.characters(exclude_categories=["Cs"])), max_size=30)


@settings(deadline=None)
@given(KEYS, st.integers(0, 2**31 - 31), st.integers(1, 4))
def test_both_digests_are_one(keys, first, cuts):
    indices = list(range(first, first + len(keys)))
    expected = identities_digest(zip(indices, keys, strict=True))
    whole = pa.table({"index": pa.array(indices, pa.int32()), "key": pa.array(keys, pa.string())})
    step = max(1, len(keys) // cuts)
    parts = [whole.slice(start, step) for start in range(0, len(keys), step)]
    for table in (whole, pa.concat_tables(parts) if parts else whole):
        assert digest_identities(table["index"], table["key"]) == expected
    changed = [*keys[:-1], keys[-1] + "x"] if keys else ["x"]
    column = pa.chunked_array([pa.array(changed, pa.string())])
    numbers = pa.chunked_array([pa.array(range(first, first + len(changed)), pa.int32())])
    assert digest_identities(numbers, column) != expected
