# Two commands set everything up on a machine that has Python and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A file's tests stay in one process: they share models and data.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: demo test test-all test-tree test-oldest lint clean

# Environment, install, the main job on procedural parts, results.
demo: $(VENV)/installed
	$(BIN)/python -m inp_former_jax.main --config=configs/demo.py \
	  --workdir=workdir/demo
	@echo "Look at workdir/demo/grid.png"

# Environment, install, the test suite.
test: $(VENV)/installed
	$(PYTEST) $(PYTEST_ARGS)

# The slow tests as well.
test-all: $(VENV)/installed
	$(PYTEST) -m "slow or not slow" $(PYTEST_ARGS)

# The test suite in the tree mode that Flax NNX has announced as its next one.
test-tree: export NNX_GRAPH_MODE := false
test-tree: export NNX_GRAPH_UPDATES := false
test-tree: test

# The test suite with the oldest versions of every package that pyproject.toml
# names, in an environment of its own.
test-oldest:
	$(PYTHON) -m venv --clear .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet uv
	.venv-oldest/bin/uv pip install --quiet --python .venv-oldest/bin/python \
	  --resolution lowest-direct -e ".[test]"
	.venv-oldest/bin/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyrefly check

clean:
	rm -rf $(VENV) .venv-oldest workdir build *.egg-info

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@
