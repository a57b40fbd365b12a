# make demo: the main job on the embedded example.  make test: the whole suite.  Both set up everything they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := $(shell find kernels/cpp -type f) CMakeLists.txt pyproject.toml
TEST_FLAGS ?=

.PHONY: demo test lint format bench sanitize dist docs clean

demo: $(VENV)/.runtime
	$(BIN)/optimize --output demo-out

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist worksteal $(TEST_FLAGS)

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python benchmarks/tables.py --check
	$(BIN)/mkdocs build --quiet
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.c' '*.cpp' '*.h' '*.inc')

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files '*.c' '*.cpp' '*.h' '*.inc')

bench: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[torch,bench]"
	$(BIN)/python benchmarks/sizes.py
	$(BIN)/python benchmarks/agreement.py
	$(BIN)/python benchmarks/against_peers.py
	$(BIN)/python benchmarks/latency_prediction.py
	$(BIN)/python benchmarks/against_uniform.py

# The kernels' tests with everything in C++ under the address and undefined-behaviour sanitizers, in an environment of its
# own. Python itself is not built with them: their library has to be loaded before it. Sanitized levels share a symbol of
# the language's run-time library, so that one test is left out.
SANITIZED := build/sanitize
SANITIZER := -fsanitize=address,undefined -fno-sanitize-recover=undefined
SANITIZED_PYTHON := $(SANITIZED)/venv/bin/python
PURELIB := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'

sanitize: $(VENV)/.test
	$(BIN)/python -m venv --without-pip $(SANITIZED)/venv
	$(BIN)/python $(PURELIB) > "$$($(SANITIZED_PYTHON) $(PURELIB))/tools.pth"
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pip --python $(SANITIZED_PYTHON) install --quiet --force-reinstall \
		--no-build-isolation --no-deps -C build-dir=$(SANITIZED)/extension -C install.strip=false \
		-C cmake.define.BITPLAN_SANITIZE=ON -C cmake.define.BITPLAN_PYTHON=ON .
	PATH="$(abspath $(BIN)):$$PATH" PYTHONSAFEPATH=1 BITPLAN_SANITIZED_BUILD=$(SANITIZED)/extension CXX="$(CXX) $(SANITIZER)" \
		LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
		ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
		$(SANITIZED_PYTHON) -m pytest --capture=sys $(TEST_FLAGS) tests/kernels \
		--deselect tests/kernels/test_kernels_cpp.py::test_levels_share_no_code

docs: $(VENV)/.lint
	$(BIN)/python benchmarks/tables.py
	$(BIN)/mkdocs build --quiet

# Source distribution and wheel, the wheel built from the former, installed and used in an environment without torch.
dist: $(VENV)/.tools
	$(BIN)/python -m pip install --quiet build
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python tests/packaging/check_distribution.py dist/*.whl

clean:
	rm -rf $(VENV) build dist demo-out bitplan-out

$(VENV)/.tools:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "scikit-build-core>=1.0" "pybind11>=2.13" cmake ninja
	touch $@

# The build folder is kept, so that a change in C++ recompiles only what it touches.
$(VENV)/.runtime: $(VENV)/.tools $(SOURCES)
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[torch]"
	touch $@

$(VENV)/.test: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[torch,test,cluster,onnx,study]"
	touch $@

$(VENV)/.lint: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[torch,test,cluster,onnx,study,docs,lint]"
	touch $@
