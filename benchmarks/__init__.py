"""Side-by-side measurements; nothing here is a test. `make bench` runs them all and writes benchmarks/out/*.json."""
