"""Ways to run many shards. Each executor obeys the same protocol and the same contract tests."""
