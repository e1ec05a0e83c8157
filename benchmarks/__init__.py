"""Where README's figures come from: `python -m benchmarks NAME` prints a table and can write JSON."""
