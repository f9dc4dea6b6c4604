# make setup   an environment in .venv with everything in it; nothing to do when it is up to date
# make demo    quantize the bundled policy, let it drive a simulated arm through ROS 2, write out/demo/report.html
# make test    lint and tests
# make reference_policy   the bundled policy from nothing (hours; goes on where it was): config/train/reference.yaml
# make mutants random slips in the code, each judged by its module's tests (half an hour; MODULES="control gates" for a part)
# make clean   remove what was built, keep .venv;  make pin  freeze the versions of .venv after a deliberate upgrade
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo reference_policy test lint mutants clean pin

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
MESSAGE_SOURCES := $(wildcard action/*.action msg/*.msg) CMakeLists.txt cmake/pypi_ros_wheels.cmake package.xml
CPU_TORCH := https://download.pytorch.org/whl/cpu
GROUPS_WANTED := build offline libero test colcon
export MUJOCO_GL ?= egl

help:
	@sed -n 's/^# \(make\)/\1/p' Makefile

setup: $(STAMPS)/system $(STAMPS)/checkout

$(STAMPS)/system: environment/system_packages.sh
	@environment/system_packages.sh $(PYTHON)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and \
	  "Python is %d.%d; the pinned versions need 3.11. Fix: make setup PYTHON=python3.11" % sys.version_info[:2])'
	@[ -x $(BIN)/python ] || { echo "Creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/packages: environment/constraints.txt environment/without_dependencies.txt pyproject.toml environment/requirements.py \
  | $(STAMPS)/system
	@echo "Installing the pinned packages (the first time takes minutes; 4.3 GB with torch for CPUs and LIBERO)."
	@echo "Where torch comes from PyPI it brings CUDA: 2.1 GB more (computed). For the other: PIP_EXTRA_INDEX_URL=$(CPU_TORCH) make setup"
	@$(BIN)/python environment/requirements.py $(GROUPS_WANTED) > $(STAMPS)/requirements.txt
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint environment/constraints.txt \
	  --requirement $(STAMPS)/requirements.txt
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint environment/constraints.txt --no-deps \
	  --requirement environment/without_dependencies.txt
	@touch $@

$(STAMPS)/checkout: setup.py pyproject.toml $(MESSAGE_SOURCES) $(STAMPS)/packages
	@echo "Building the ROS messages and installing the checkout into $(VENV) (a minute)"
	@find $(VENV)/lib -maxdepth 3 -type l -name 'qvla_*' -delete # links of older checkouts hide the packages
	@mkdir -p build; $(BIN)/python -m pip install -v --disable-pip-version-check --no-build-isolation --no-deps \
	  --editable . > build/checkout.log 2>&1 || { cat build/checkout.log; exit 1; }
	@touch $@

demo: setup
	@$(BIN)/qvla demo --out out/demo

reference_policy: setup
	@$(BIN)/qvla reference --recipe config/train/reference.yaml

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

test: lint
	@$(BIN)/python -m pytest

mutants: setup $(STAMPS)/mutants
	@$(BIN)/python benchmarks/mutants.py $(MODULES)

$(STAMPS)/mutants: environment/constraints.txt pyproject.toml environment/requirements.py | $(STAMPS)/packages
	@$(BIN)/python environment/requirements.py mutants > $(STAMPS)/mutants.txt
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint environment/constraints.txt \
	  --requirement $(STAMPS)/mutants.txt
	@touch $@

clean:
	rm -rf build install log out .pytest_cache .mypy_cache .ruff_cache .hypothesis

pin: setup $(STAMPS)/mutants
	@$(BIN)/python environment/pin.py
