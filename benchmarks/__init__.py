"""Side-by-side measurements: `make bench`. Nothing here is a test. Figures go to benchmarks/out/*.json."""
