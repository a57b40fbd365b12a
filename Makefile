# make demo: the main job on the embedded example.  make test: the whole suite.  Both set up everything they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := $(shell find kernels/cpp -type f) CMakeLists.txt pyproject.toml
TEST_FLAGS ?=

.PHONY: demo test lint format bench clean

demo: $(VENV)/.runtime
	$(BIN)/optimize --output demo-out

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist worksteal $(TEST_FLAGS)

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.cpp' '*.h' '*.inc')

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files '*.cpp' '*.h' '*.inc')

bench: $(VENV)/.runtime
	$(BIN)/python benchmarks/sizes.py
	$(BIN)/python benchmarks/agreement.py
	$(BIN)/python benchmarks/latency_prediction.py
	$(BIN)/python benchmarks/against_uniform.py

clean:
	rm -rf $(VENV) build demo-out bitplan-out

$(VENV)/.tools:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "scikit-build-core>=1.0" "pybind11>=2.13" cmake ninja
	touch $@

# The build folder is kept, so that a change in C++ recompiles only what it touches.
$(VENV)/.runtime: $(VENV)/.tools $(SOURCES)
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[torch]"
	touch $@

$(VENV)/.test: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[torch,test]"
	touch $@

$(VENV)/.lint: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[torch,test,lint]"
	touch $@
