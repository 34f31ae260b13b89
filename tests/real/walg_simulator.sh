#!/bin/sh
# A simulator of WAL-G 3.0, no WAL-G: it answers the documented commands in their documented shapes over a
# real folder of real base backups and real segments. Documented statuses: 74 for a file that is not in the
# storage, 1 for every other failure. Layout, names and JSON keys are WAL-G's; archives are gzip's, which
# WAL-G does not write. Its configuration file must name WALG_FILE_PREFIX.
set -u

fail() {
    echo "ERROR: $(date -u '+%Y/%m/%d %H:%M:%S.000000') $1" >&2
    exit "${2:-1}"
}

config=''
for word in "$@"; do
    shift
    case $word in
        --config=*) config=${word#--config=} ;;
        --version) echo "wal-g version v3.0.9	simulator	2026.01.01_00:00:00	PostgreSQL"; exit 0 ;;
        --*) ;;
        *) set -- "$@" "$word" ;;
    esac
done
test -r "$config" || fail "open $config: permission denied"
prefix=$(sed -n 's/.*"WALG_FILE_PREFIX": *"\([^"]*\)".*/\1/p' "$config")
test -d "$prefix" || fail "Failed to configure multi-storage: configure primary storage: $prefix does not exist"
backups=$prefix/basebackups_005 log=$prefix/wal_005

# a password WAL-G would decrypt with: here only compared, so that a missing secret is an error
wanted=$(cat "$prefix/passphrase" 2>/dev/null)
test -z "$wanted" || test "${WALG_LIBSODIUM_KEY:-}" = "$wanted" || fail "failed to decrypt: libsodium: invalid key"

backup_list() {
    printf '['
    comma=''
    for detail in "$backups"/*.detail.json; do
        test -f "$detail" || continue
        printf '%s' "$comma" && tr -d '\n' <"$detail"
        comma=,
    done
    printf ']\n'
}

wal_show() {
    printf '['
    comma=''
    timelines=$(ls "$log" 2>/dev/null | sed -n 's/^\([0-9A-F]\{8\}\)[0-9A-F]\{16\}\.gz$/\1/p' | sort -u)
    for timeline in $timelines; do
        names=$(ls "$log" | sed -n "s/^\($timeline[0-9A-F]\{16\}\)\.gz\$/\1/p" | sort)
        first=$(echo "$names" | head -n 1) last=$(echo "$names" | tail -n 1)
        number=$((0x${first#????????????????})) missing='' count=0 range=0
        upper=$((0x${first%????????} % 4294967296))
        while :; do
            range=$((range + 1))
            name=$(printf '%s%08X%08X' "$timeline" "$upper" "$number")
            if test -f "$log/$name.gz"; then count=$((count + 1)); else missing="$missing${missing:+,}\"$name\""; fi
            test "$name" = "$last" && break
            number=$((number + 1))
            test "$number" -le 255 || { number=0; upper=$((upper + 1)); }
        done
        test -z "$missing" && status=OK || status=LOST_SEGMENTS
        printf '%s{"id":%d,"parent_id":0,"switch_point_lsn":0,"start_segment":"%s","end_segment":"%s",' \
            "$comma" "$((0x$timeline))" "$first" "$last"
        printf '"segments_count":%d,"missing_segments":[%s],"segment_range_size":%d,"status":"%s"}' \
            "$count" "$missing" "$range" "$status"
        comma=,
    done
    printf ']'
}

wal_fetch() {
    test -e "$2" && fail "open $2: file exists"
    case $1 in
        *.history)
            test -f "$log/$1" || fail "Archive '$1' does not exist." 74
            cp "$log/$1" "$2"
            ;;
        *)
            test -f "$log/$1.gz" || fail "Archive '$1' does not exist." 74
            # what was unpacked before the damage stays, as WAL-G leaves it
            gzip -dc "$log/$1.gz" >"$2" 2>/dev/null || fail "DownloadAndDecompressFile: unexpected EOF"
            ;;
    esac
}

backup_fetch() {
    test -f "$backups/$2_backup_stop_sentinel.json" || fail "Backup '$2' does not exist."
    test -z "$(ls -A "$1" 2>/dev/null)" || fail "Directory $1 for delta base must be empty"
    mkdir -p "$1"
    gzip -dc "$backups/$2/tar_partitions/part_001.tar.gz" 2>/dev/null | tar -xf - -C "$1" 2>/dev/null ||
        fail "Failed to fetch backup: extractOne: Interpret failed: unexpected EOF"
    gzip -t "$backups/$2/tar_partitions/part_001.tar.gz" 2>/dev/null ||
        fail "Failed to fetch backup: extractOne: Interpret failed: gzip: invalid checksum"
}

case "${1:-} ${2:-}" in
    "backup-list "*) backup_list ;;
    "wal-show "*) wal_show ;;
    "wal-fetch "*) wal_fetch "$2" "$3" ;;
    "backup-fetch "*) backup_fetch "$2" "$3" ;;
    "st cat") cat "$prefix/$3" 2>/dev/null || fail "object '$3' not found in storage" ;;
    # WAL-G's own `wal-push`: production's archive_command
    "wal-push "*)
        name=${2##*/}
        case $name in
            *.history) cp "$2" "$log/$name" ;;
            *) gzip -1 <"$2" >"$log/.$name.part" && mv "$log/.$name.part" "$log/$name.gz" ;;
        esac
        ;;
    *) fail "unknown command \"${1:-}\" for \"wal-g\"" ;;
esac
