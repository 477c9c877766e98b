"""The page of a run: one HTML file that opens without a network. `write.py` puts it together.

`facts.py` reads what a run's manifests and metrics say, `answers.py` its answers, and `charts.py` describes the charts
in Vega-Lite. Vega and Vega-Lite come with Snakemake, which has them for its own reports.
"""
