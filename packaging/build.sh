#!/usr/bin/env bash
# Builds what is given out: a static executable for x86-64 Linux, its manual pages and completions, a tarball with all of it,
# a Debian package and an RPM, and their checksums. All of it lies in target/dist afterwards.
#
# Needs rustup's target x86_64-unknown-linux-musl, musl-gcc (Debian: musl-tools), and for the packages cargo-deb and
# cargo-generate-rpm (cargo install --locked cargo-deb cargo-generate-rpm); a package whose program is missing is left out, and
# that is said. The same source gives the same bytes: docs/release.md says how that is checked.
#
# With VAULT_TRIAL=PROGRAM nothing is built: that executable, made for this system by any profile, is packed as it is, to try the
# packaging itself (packaging/test.sh). What comes of it is not given out, and its names say so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=${VAULT_DIST_TARGET:-x86_64-unknown-linux-musl}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
target_dir=${CARGO_TARGET_DIR:-target}
dist=$target_dir/dist
# The packages' lists of files (Cargo.toml) name this folder.
stage=target/package

# What differs between two machines must not get into the executable: the time, and where source and registry lie.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date -u -d "$(sed -n 's/^## \[.*\] - //p' CHANGELOG.md | head -1)" +%s)}
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC
umask 022
cargo_home=${CARGO_HOME:-$HOME/.cargo}
flags=$(sed -n 's/^rustflags = \[\(.*\)\]/\1/p' .cargo/config.toml | tr -d '",')
export RUSTFLAGS="$flags --remap-path-prefix=$PWD=/vault --remap-path-prefix=$cargo_home=/cargo"
export CFLAGS="-ffile-prefix-map=$PWD=/vault -ffile-prefix-map=$cargo_home=/cargo"

rm -rf "$dist" "$stage"
mkdir -p "$dist" "$stage/man" "$stage/completions"
if [ -n "${VAULT_TRIAL:-}" ]; then
    target=trial
    built=$VAULT_TRIAL
    for_target=()
else
    cargo build --release --locked --bin vault --target "$target"
    built=$target_dir/$target/release/vault
    for_target=(--target "$target")
fi
install -m 755 "$built" "$stage/vault"
"$stage/vault" man "$stage/man" >/dev/null
# The shells ask the program itself, which knows snapshots, sources and vaults.
"$stage/vault" completions --dynamic bash >"$stage/completions/vault.bash"
"$stage/vault" completions --dynamic zsh >"$stage/completions/_vault"
"$stage/vault" completions --dynamic fish >"$stage/completions/vault.fish"
gzip -9n "$stage"/man/*.1

name=vault-$version-$target
mkdir "$stage/$name"
cp -r "$stage/vault" "$stage/man" "$stage/completions" README.md CHANGELOG.md SPEC.md SECURITY.md LICENSE docs packaging/systemd \
    tests/reader.py "$stage/$name/"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C "$stage" -c "$name" |
    gzip -9n >"$dist/$name.tar.gz"

if cargo deb --version >/dev/null 2>&1; then
    cargo deb --no-build --no-strip "${for_target[@]}" ${VAULT_TRIAL:+--fast --deb-revision trial} --output "$dist/" >/dev/null
else
    echo "No Debian package: cargo-deb is not installed." >&2
fi
if cargo generate-rpm --version >/dev/null 2>&1; then
    cargo generate-rpm "${for_target[@]}" --output "$dist/" --source-date "$SOURCE_DATE_EPOCH"
else
    echo "No RPM: cargo-generate-rpm is not installed." >&2
fi
(cd "$dist" && sha256sum -- * >SHA256SUMS && cat SHA256SUMS)
