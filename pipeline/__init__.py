"""How a run goes: ingest, decode, score, decide, settle. `examine.py` shows one shard end to end."""
