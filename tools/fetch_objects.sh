#!/usr/bin/env bash
# Fetch Debian's BPF objects, real programs for the tests to read: tools/fetch_objects.sh [FOLDER]
#
# The packages are downloaded and unpacked, never installed, so root is not needed where apt's lists are there.
# FOLDER (BPFC_DEBIAN_OBJECTS, else .cache/debian) ends up with one folder a package, holding its objects only.
# What there is to find: docs/objects.md.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
    golang-github-cilium-ebpf-dev ir-keytable libbpf-tools libknot13 libxdp1 pcp qemu-system-x86 xdp-tests xdp-tools
)
folder=${1:-${BPFC_DEBIAN_OBJECTS:-.cache/debian}}

for tool in apt-get dpkg "${PYTHON:=python3}"; do
    command -v "$tool" >/dev/null || { echo "fetch_objects: '$tool' not found" >&2; exit 1; }
done
if [ "$(id -u)" = 0 ]; then
    apt-get update -qq || echo "fetch_objects: apt-get update failed; going on with the lists there are" >&2
fi

mkdir -p "$folder"
folder=$(realpath "$folder")
tools=$PWD/tools
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

for package in "${packages[@]}"; do
    if apt-get download -qq -o APT::Sandbox::User=root "$package"; then
        dpkg -x "$package"_*.deb "$package"
        "$PYTHON" "$tools/collect_objects.py" "$package" "$folder/$package"
    else
        echo "fetch_objects: apt has no $package" >&2
    fi
done
rmdir "$folder" 2>/dev/null && { echo "fetch_objects: found nothing" >&2; exit 1; } || exit 0
