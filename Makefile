# Everything runs from a clean checkout with python3 (3.11 or newer) and make.
.DEFAULT_GOAL := help
SHELL := bash
PYTHON ?= python3
VENV ?= .venv
VENV_OLDEST ?= .venv-oldest
BUILD ?= build
DIST ?= dist
# where torch comes from, such as https://download.pytorch.org/whl/cpu: PyPI's build for Linux
# takes gigabytes of CUDA packages
TORCH_INDEX ?=
# where a virtual environment has its programs
BIN_DIR := $(if $(filter Windows_NT,$(OS)),Scripts,bin)
BIN := $(VENV)/$(BIN_DIR)
# an environment that holds nothing but the wheel and what it needs
WHEEL_DIR := $(BUILD)/wheel
BIN_WHEEL := $(WHEEL_DIR)/venv/$(BIN_DIR)
# A test process for each core, of one thread; tests of a module stay together, as they share fits.
PARALLEL := -n auto --dist loadscope
DEMO_DIR := $(BUILD)/demo

# The default encoder comes as a package: nothing here may reach for a model hub.
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
export MPLBACKEND := Agg
export OMP_NUM_THREADS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install install-browser install-engines install-llm demo test test-slow test-engines test-llm test-docs test-oldest fuzz lint format docs clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# $(call install-torch,programs,constraints)
install-torch = $(if $(TORCH_INDEX),$(1)/python -m pip install --quiet --no-deps --constraint $(2) \
	--index-url $(TORCH_INDEX) torch)

install: $(VENV)/.installed ## the development environment, in .venv

# A stamp, so that pip runs again only when what it reads has changed.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(call install-torch,$(BIN),constraints.txt)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

install-llm: $(VENV)/.installed-llm ## a tiny language model, for the tests that ask a real one

# llama.cpp is built here, in some minutes. Not for this processor alone: with gcc 12 that build
# crashes where there is AMX; and not from pip's cache, which may hold such a build.
$(VENV)/.installed-llm: $(VENV)/.installed
	CMAKE_ARGS='-DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF -DMTMD_BUILD=OFF' $(BIN)/pip install --quiet \
		--no-cache-dir --no-deps --constraint constraints.txt llama-cpp-python
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[llm-tests]'
	@touch $@

install-engines: $(VENV)/.installed-engines ## Dask, Ray, Spark and accelerate, for the tests that run on them

$(VENV)/.installed-engines: $(VENV)/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[engines-tests]'
	@touch $@

install-browser: ## a headless browser, for the test of the example service's page; Debian, as root
	command -v chromium-headless-shell || command -v chromium || \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium-headless-shell; }

$(VENV_OLDEST)/.installed: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(VENV_OLDEST)
	$(call install-torch,$(VENV_OLDEST)/bin,constraints-oldest.txt)
	$(VENV_OLDEST)/bin/pip install --quiet --constraint constraints-oldest.txt --editable '.[tests]'
	@touch $@

.PHONY: install-nightly dist check-dist

# Not into .installed: `make install` brings the pinned version back.
install-nightly: $(VENV)/.installed ## scikit-learn of last night, for `make test`
	$(BIN)/pip install --quiet --no-deps --pre --upgrade \
		--index-url https://pypi.anaconda.org/scientific-python-nightly-wheels/simple scikit-learn

dist: $(VENV)/.installed ## the source archive and the wheel, in dist
	rm -rf $(DIST)
	$(BIN)/python -m build --no-isolation --outdir $(DIST)

check-dist: dist ## metadata; the wheel in an empty environment, running the code of the README
	$(BIN)/python -m twine check --strict $(DIST)/*
	rm -rf $(WHEEL_DIR) && mkdir -p $(WHEEL_DIR)/elsewhere
	$(PYTHON) -m venv $(WHEEL_DIR)/venv
	$(call install-torch,$(BIN_WHEEL),constraints.txt)
	$(BIN_WHEEL)/pip install --quiet --constraint constraints.txt "$$(ls $(DIST)/*.whl)[offline,onnx,plot]" pandas
	$(BIN_WHEEL)/pip check
	cd $(WHEEL_DIR)/elsewhere && $(abspath $(BIN_WHEEL))/python $(CURDIR)/tests/readme_code.py

demo: $(VENV)/.installed ## train on the bundled chats, print a table, save a plot
	@mkdir -p $(DEMO_DIR)
	cd $(DEMO_DIR) && $(abspath $(BIN))/python $(CURDIR)/examples/plot_01_quickstart.py
	@ls $(DEMO_DIR)/*.png >/dev/null && echo "Plot saved: $$(ls $(abspath $(DEMO_DIR))/*.png)"

test: $(VENV)/.installed ## all tests but the slow ones and those of a language model; line coverage
	$(BIN)/python -m pytest $(PARALLEL) -m 'not slow and not fuzz and not llm and not engines and not docs' --cov --cov-report=term-missing:skip-covered --cov-fail-under=95

test-slow: $(VENV)/.installed ## the slow tests
	@$(BIN)/python -m pytest $(PARALLEL) tests -m 'slow and not engines' || { code=$$?; [ $$code -eq 5 ] && echo 'No slow tests.' || exit $$code; }

fuzz: $(VENV)/.installed ## generated inputs, damaged files and kills, for an hour or so
	$(BIN)/python -m pytest $(PARALLEL) tests -m fuzz
	$(BIN)/python tests/mutate.py --mutants 3000
	$(BIN)/python benchmarks/fuzz_cache.py --mutants 3000

test-engines: $(VENV)/.installed-engines ## the tests on Dask, Ray, Spark and several processes
	$(BIN)/python -m pytest tests -m engines

test-llm: $(VENV)/.installed-llm ## the tests that ask a real, tiny language model
	$(BIN)/python -m pytest tests -m llm -rP

test-oldest: $(VENV_OLDEST)/.installed ## the tests on the oldest supported versions
	$(VENV_OLDEST)/bin/python -m pytest $(PARALLEL) tests -m 'not slow and not fuzz and not llm and not engines and not docs'

lint: $(VENV)/.installed ## ruff, mypy, and which part may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed ## rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed ## the documentation site with its gallery, in build/docs/html
	$(BIN)/sphinx-build -W --keep-going -b html -d $(BUILD)/docs/doctrees docs $(BUILD)/docs/html
	@echo "Documentation: $(CURDIR)/$(BUILD)/docs/html/index.html"

test-docs: $(VENV)/.installed ## the built site: links, and each page in a browser
	$(BIN)/python -m pytest tests/test_site.py

clean: ## remove everything that was built or installed here
	rm -rf $(VENV) $(VENV_OLDEST) $(BUILD) $(DIST) docs/_build docs/api docs/auto_examples \
		docs/sg_execution_times.rst .mypy_cache .pytest_cache .ruff_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
