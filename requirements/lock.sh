#!/usr/bin/env bash
# Resolve pyproject.toml in a fresh environment and write what it got to lock.txt. Pins that are there stay;
# `make lock UPGRADE=1` takes the newest of everything but torch.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${1:-python3.11}" -m venv "$folder"
torch=$(grep '^torch==' requirements/lock.txt)
pins=requirements/lock.txt
test -z "${UPGRADE:-}" || pins=/dev/null
"$folder/bin/pip" install --quiet --constraint "$pins" "$torch" ".[docs,test]"
{
    sed -n '/^#/p' requirements/lock.txt
    echo "$torch"
    "$folder/bin/pip" freeze --all --exclude heronry --exclude torch --exclude pip --exclude wheel | sed 's/+cpu//'
} >"$folder/lock.txt"
mv "$folder/lock.txt" requirements/lock.txt
