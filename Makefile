# Everything sets itself up: `make demo` and `make test` need only Python 3.11 or newer and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := $(BIN)/lit-gen

.PHONY: demo test test-slow lint types install clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@

# Train, test and sample a VAE on the embedded digits: three ordinary commands.
demo: install
	$(RUN) fit -c configs/vae/digits.yaml
	$(RUN) test -c configs/vae/digits.yaml --ckpt_path best
	$(RUN) sample runs/vae/digits -n 64 -o runs/vae/digits/generated

# One process for each core, one thread for each process: twice as fast as the reverse, and repeatable.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile

# What the default suite leaves out: further configs, variants and precisions of what it has tested once.
test-slow: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache
