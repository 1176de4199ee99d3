#!/usr/bin/env bash
# limbeck on a lent device machine, in pieces that fit its limits; gpu.md says what is to be run.
#
#   here, once:   on_gpu.sh wheels         what that machine lacks, into .packed/wheels
#   here:         on_gpu.sh send RUN...    folders of runs that it is to have, into pieces in .packed/send
#   there:        on_gpu.sh run 'VERB ... --run RUN' ['VERB ... --run RUN' ...]
#                 all at once; who is not finished at LIMIT seconds (540) writes a checkpoint and stops; the same
#                 again goes on. Their folders come back in pieces, four of them in this call
#   there:        on_gpu.sh more           the next four pieces
#   here:         on_gpu.sh fetch FOLDER   a reply's `files_at`: with the last piece, the folders are where they were
#
# PYTHON, OUT and LIMIT may be set to try it without such a machine.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3} limit=${LIMIT:-540} out=${OUT:-}
waiting=/tmp/limbeck-pieces

wheels() {
    local wanted platform
    wanted=$($python -c 'from importlib.metadata import version
for name in "pydantic pydantic-core annotated-types typing-inspection typing-extensions".split():
    print(f"{name}=={version(name)}")')
    platform=$(printf -- '--platform manylinux%s_x86_64 ' _2_28 _2_17 2014)
    rm -rf .packed/wheels
    # shellcheck disable=SC2086 - a word for each package and platform
    $python -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp $platform \
        -d .packed/wheels $wanted
    ls -sh .packed/wheels
}

run() {
    local command folder
    export PYTHONPATH=/tmp/site:$PWD/src PYTHONUNBUFFERED=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
    $python -c 'import pydantic, typing_inspection' 2> /dev/null ||
        $python -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target /tmp/site \
            .packed/wheels/*.whl
    if [ -d .packed/send ]; then join .packed/send; fi
    for command in "$@"; do
        folder=$(folder_of "$command")
        mkdir -p "$(dirname "$folder")"
        # shellcheck disable=SC2086 - the words of the command
        timeout -s TERM $((limit - SECONDS)) $python -c 'from limbeck.cli import main; main()' $command \
            >> "$folder.log" 2>&1 &
    done
    wait
    for command in "$@"; do
        folder=$(folder_of "$command")
        echo "$folder" >> "$out/runs.txt"
        echo "== $folder: $(if finished "$folder"; then echo finished; else echo 'NOT finished'; fi)"
        tail -n 3 "$folder.log"
        grep -sho '"images_per_second": [0-9]*' "$folder/metrics.jsonl" | tail -n 1 || echo 'no epoch is complete'
    done
    sort -u "$out/runs.txt" | files_of > /tmp/limbeck-files
    cut_up "$waiting" 16000000 -T /tmp/limbeck-files
    rm -f "$out"/piece.*
    more
}

# All files of the runs on standard input, without the checkpoints of finished ones.
files_of() {
    local folder file
    while read -r folder; do
        find "$folder"* -type f -path "$folder[./]*" | while read -r file; do
            if [ "${file##*/}" != checkpoint.pt ] || ! finished "${file%/*}"; then echo "$file"; fi
        done
    done
}

more() {
    find "$waiting" -name 'piece.*' | sort | head -n 4 | xargs -r mv -t "$out"
    echo "$(find "$waiting" -name 'piece.*' | wc -l) pieces are left to come back"
}

send() {
    cut_up .packed/send $((24 << 20)) "$@"
    ls -sh .packed/send
}

fetch() {
    mkdir -p .packed/back
    if compgen -G "$1/piece.00-*" > /dev/null; then rm -f .packed/back/*; fi
    cp --no-preserve=mode "$1"/piece.* .packed/back
    join .packed/back
}

folder_of() { sed -E 's/.*--run ([^ ]+).*/\1/' <<< "$1"; }

finished() { [ -f "$1/result.json" ]; }

# cut_up FOLDER BYTES FILES...: files as FOLDER/piece.00-of-3 and so on.
cut_up() {
    local piece count
    rm -rf "$1" && mkdir -p "$1"
    tar -cf - "${@:3}" | split -d -b "$2" - "$1/piece."
    count=$(find "$1" -name 'piece.*' | wc -l)
    for piece in "$1"/piece.*; do mv "$piece" "$piece-of-$count"; done
}

# join FOLDER: the files that its pieces hold, where they were, once all pieces are there.
join() {
    local pieces=("$1"/piece.*)
    if [ "${#pieces[@]}" != "${pieces[0]##*-of-}" ]; then
        echo "${#pieces[@]} of ${pieces[0]##*-of-} pieces are in $1; the others are still to come"
        return
    fi
    cat "${pieces[@]}" | tar -xf -
    rm -r "$1"
}

"$@"
