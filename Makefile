# make demo    the default experiment: three rounds on this machine's CPU
# make test    lint and tests
# make full    everything, at its real numbers
# make test-deepspeed    training under DeepSpeed (ZeRO 0, 2, 3), two processes; needs a C++ compiler
# make bench   measurements beside other ways to do the same, into benchmarks/out/

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-deepspeed bench full lint setup

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

# Environments that add a few packages to .venv, which stays free of them: they slow every start down.
.venv-deepspeed/ready .venv-trl/ready: .venv-%/ready: envs/%.txt .venv/ready
	$(PYTHON) -m venv .venv-$*
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > $$(.venv-$*/bin/python -c 'import site; print(site.getsitepackages()[0])')/base.pth
	.venv-$*/bin/python -m pip install --quiet --no-deps --no-build-isolation -r envs/$*.txt
	touch $@

test-deepspeed: .venv-deepspeed/ready
	.venv-deepspeed/bin/python -m pytest -m slow tests/test_train_stage.py $(ONLY)

bench: .venv-trl/ready
	OMP_NUM_THREADS=1 .venv-trl/bin/python -m benchmarks.training

full: test demo test-deepspeed bench
	$(BIN)/snakemake --profile local round8_checkpoint
	$(BIN)/snakemake --profile local verify
