"""What a signal is: hashes, lists, embedders and heads. Arrays in, arrays out; the only place torch is imported."""
