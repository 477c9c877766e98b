# make demo    the default experiment: three rounds on this machine's CPU
# make test    lint and tests
# make full    both, at their real numbers

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test full lint setup

setup: .venv/ready

.venv/ready: envs/requirements.txt envs/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r envs/requirements.txt -c envs/constraints.txt
	touch $@

demo: setup
	$(BIN)/snakemake --profile local round3_checkpoint

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

test: lint
	$(BIN)/python -m pytest -n 2

full: test demo
	$(BIN)/snakemake --profile local round8_checkpoint
	$(BIN)/snakemake --profile local verify
