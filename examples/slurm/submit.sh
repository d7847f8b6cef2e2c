#!/bin/bash
# Examine in PARTS jobs, then settle: submit.sh CONFIG [PARTS]
set -euo pipefail
config=$(realpath "$1")
parts=${2:-16}
cd "$(dirname "$0")"
examine=$(sbatch --parsable --array="1-$parts" --export="ALL,CONFIG=$config,PARTS=$parts" examine.sbatch)
sbatch --dependency="afterok:$examine" --kill-on-invalid-dep=yes --export="ALL,CONFIG=$config" "${SETTLE:-settle.sbatch}"
