"""Programs that write the documentation's site: `python -m docs.tools.write_site`, or `make docs`."""
