#!/usr/bin/env bash
# A small real run of DistPro on the CPU: teacher, student alone, KD, ReviewKD, search, DistPro and its two controls.
#   benchmarks/small_real_run.sh PARQUET_FOLDER RUNS [SEED ...]
# Finished runs are skipped, stopped ones go on: the same command again continues.
set -euo pipefail
data=$1 runs=$2
shift 2
common=(--data "hf:$data" --set data.size=32 --set data.classes=20 --set data.per_class=250
        --batch-size 64 --lr 0.05 --precision bf16 --device cpu --set schedule.drops=[0.625,0.75,0.875])
student=(--student resnet8 --teacher "$runs/teacher" --epochs 12)

limbeck train --run "$runs/teacher" --network resnet20 --epochs 40 "${common[@]}"
for seed in "${@:-0}"; do
    job=(--seed "$seed" "${common[@]}" "${student[@]}")
    limbeck train --run "$runs/alone-$seed" --network resnet8 --epochs 12 --seed "$seed" "${common[@]}"
    limbeck distill --run "$runs/kd-$seed" --method kd "${job[@]}"
    limbeck distill --run "$runs/reviewkd-$seed" --method reviewkd --set method.weight=0.6 "${job[@]}"
    # the paper searches a sixth of the length; here a third, as a sixth would be two epochs
    limbeck search --run "$runs/search-$seed" --method distpro --epochs 4 --seed "$seed" "${common[@]}" "${student[@]:0:4}"
    limbeck distill --run "$runs/distpro-$seed" --method distpro --process "$runs/search-$seed" "${job[@]}"
    limbeck distill --run "$runs/equal-$seed" --method distpro --set process.use=equal "${job[@]}"
    limbeck distill --run "$runs/final-$seed" --method distpro --process "$runs/search-$seed" --set process.use=final "${job[@]}"
done
limbeck table "$runs"/*/
limbeck report "$runs"/*/ --out "$runs/report.html"
