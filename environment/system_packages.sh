#!/usr/bin/env bash
# What no Python package brings: a compiler for the messages, and Mesa's software OpenGL for rendering without a screen.
# Installs what is missing when run as root on Debian or Ubuntu; otherwise prints the command and stops.
set -euo pipefail

packages=()
need() { packages+=("$@"); }

command -v g++ >/dev/null || need g++
command -v cmake >/dev/null || need cmake
command -v ninja >/dev/null || need ninja-build
"${1:-python3}" -c 'import ensurepip, venv' 2>/dev/null || need python3-venv
"${1:-python3}" -c 'import pathlib, sysconfig, sys
sys.exit(not (pathlib.Path(sysconfig.get_path("include")) / "Python.h").exists())' || need python3-dev
libraries=$(/sbin/ldconfig -p)
has() { [[ $libraries == *"$1"* ]]; }
has libEGL.so.1 || need libegl1
has libEGL_mesa.so.0 || need libegl-mesa0 libgl1-mesa-dri
has libGL.so.1 || need libgl1
has libglib-2.0.so.0 || need libglib2.0-0

[ ${#packages[@]} -eq 0 ] && exit 0
install="apt-get install -y --no-install-recommends ${packages[*]}"
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  printf 'These system packages are missing: %s\nInstall them, then run make again:\n  sudo apt-get update && sudo %s\n' \
    "${packages[*]}" "$install" >&2
  exit 1
fi
echo "Installing system packages: ${packages[*]}"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive $install -qq >/dev/null
