# make quickstart   train an adapter on the embedded model
# make test         ruff, mypy and pytest
# make test-faults  kill runs and resume them; takes minutes
# make families     take every model family through training and answers; writes docs/models.md
# make mutants      plant faults in the code and report which test finds each; takes minutes
# make texts      write the texts of the code into the Russian catalogs, and compile them
# make wheels       check that pip can install constraints.txt on each system; takes minutes
# make bench        compare with PEFT, TRL and LitGPT, on two idle cores: benchmarks/RESULTS.md
# Each sets up what it needs in .venv and models/, once.

PYTHON ?= python3
# A module is compiled when it is first imported: most of what the packages bring never is. Where Python may
# not write that down, every start would compile all again.
COMPILE = $(if $(PYTHONDONTWRITEBYTECODE),,--no-compile)
PIP = .venv/bin/python -m pip install --disable-pip-version-check $(COMPILE) --constraint constraints.txt
MODEL = models/SmolLM2-135M-Instruct

LITGPT = .venv-bench-litgpt/checkpoint/SmolLM2-135M-Instruct

.PHONY: quickstart test test-faults families mutants texts wheels bench lint format clean

quickstart: .venv/quickstart
	.venv/bin/python -m lit.quickstart

# Two files at a time, in the order of tests/conftest.py; tests of one file share what they make.
test: lint $(MODEL)/config.json
	.venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-faults: .venv/test
	.venv/bin/python -m pytest -m faults

families: .venv/test
	.venv/bin/python -m tests.families.page
	.venv/bin/python -m pytest -m "families or not families" tests/families

# MUTANTS="labels plan" plants the faults of two areas only.
mutants: .venv/test $(MODEL)/config.json
	.venv/bin/python -m tests.mutants --keep-going $(MUTANTS)

# Fails while a text has no translation.
texts: .venv/test
	.venv/bin/python -m tests.catalogs

wheels: .venv/test
	.venv/bin/python tests/wheels.py

# BENCH="--steps 2 --workloads a --parts speed" is a quick trial. Measurements in results.json are kept and
# not repeated; add --fresh to measure all again, or --results FILE to write elsewhere.
# The recipe makes the model itself, because the rule for the model would install into .venv.
bench: .venv-bench/stamp $(LITGPT)/lit_model.pth
	test -f $(MODEL)/config.json || .venv-bench/bin/python -m lit.embedded $(MODEL)
	.venv-bench/bin/python -m benchmarks.peers $(BENCH)

lint: .venv/test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: .venv/test
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

$(MODEL)/config.json: | .venv/quickstart
	.venv/bin/python -m lit.embedded $(MODEL)

# A stamp is written after its install succeeded, so an interrupted one is done again.
.venv/test: setup.cfg constraints.txt | .venv/quickstart
	$(PIP) --editable .[quickstart,test]
	touch $@

.venv/quickstart: setup.cfg constraints.txt | .venv/bin/python
	$(PIP) --editable .[quickstart]
	touch $@

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv-bench/stamp: setup.cfg constraints.txt benchmarks/peers/requirements.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --disable-pip-version-check \
		--constraint constraints.txt --editable .[quickstart] -r benchmarks/peers/requirements.txt
	touch $@

.venv-bench-litgpt/stamp: benchmarks/peers/requirements-litgpt.txt
	$(PYTHON) -m venv .venv-bench-litgpt
	.venv-bench-litgpt/bin/python -m pip install --disable-pip-version-check -r $<
	touch $@

$(LITGPT)/lit_model.pth: .venv-bench-litgpt/stamp | .venv-bench/stamp
	test -f $(MODEL)/config.json || .venv-bench/bin/python -m lit.embedded $(MODEL)
	mkdir -p $(LITGPT)
	cp $(MODEL)/* $(LITGPT)
	.venv-bench-litgpt/bin/litgpt convert_to_litgpt $(LITGPT) \
		--model_name SmolLM2-135M-Instruct --dtype float32 > .venv-bench-litgpt/convert.log

clean:
	rm -rf .venv .venv-bench .venv-bench-litgpt .pytest_cache .hypothesis .mypy_cache .ruff_cache *.egg-info build
