#!/usr/bin/env bash
# Builds what is given out: a Debian package and an RPM with an executable for systems of today, a tarball with a static one that
# runs on any Linux, the source, and their checksums. All of it lies in target/dist afterwards. Nothing is uploaded.
#
# One call of cargo builds both executables. It needs rustup's target ARCH-unknown-linux-musl and musl-gcc (Debian: musl-tools); the
# packages need cargo-deb and cargo-generate-rpm (cargo install --locked cargo-deb cargo-generate-rpm). A package whose program is
# missing is left out, and that is said. The same source gives the same bytes: docs/release.md says how that is checked.
#
# VAULT_MAINTAINER ("NAME <ADDRESS>") is entered as the maintainer of the packages.
#
# With VAULT_TRIAL=PROGRAM nothing is built: that executable, made for this system by any profile, is packed as it is, to try the
# packaging itself (packaging/test.sh). What comes of it is not given out, and its names say so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")
dist=$target_dir/dist
# The packages' lists of files (Cargo.toml) name this folder.
stage=target/stage
gnu=$(uname -m)-unknown-linux-gnu
musl=$(uname -m)-unknown-linux-musl

# What differs between two machines must not get into the executables: the time, and where source, registry and compiler lie.
changed=$(sed -n 's/^## \[.*\] - //p' CHANGELOG.md | head -1)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date -u -d "$changed" +%s)}
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC
umask 022
build() {
    local cargo_home=${CARGO_HOME:-$HOME/.cargo} std commit flags
    std=$(rustc --print sysroot)/lib/rustlib/src/rust
    commit=$(rustc -vV | sed -n 's/^commit-hash: //p')
    # Set in the environment, flags would replace those of the project.
    flags=$(sed -n 's/^rustflags = \[\(.*\)\]/\1/p' .cargo/config.toml | tr -d '",')
    RUSTFLAGS="$flags --remap-path-prefix=$PWD=/vault --remap-path-prefix=$target_dir=/vault/target --remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$std=/rustc/$commit" \
        CFLAGS="-ffile-prefix-map=$PWD=/vault -ffile-prefix-map=$target_dir=/vault/target -ffile-prefix-map=$cargo_home=/cargo" \
        CARGO_TARGET_DIR=$target_dir CARGO_PROFILE_RELEASE_STRIP=symbols \
        cargo build --release --locked --bin vault --target "$gnu" --target "$musl"
}

rm -rf "$dist" "$stage"
mkdir -p "$dist" "$stage/man" "$stage/completions"
if [ -n "${VAULT_TRIAL:-}" ]; then
    name=vault-$version-trial
    dynamic=$VAULT_TRIAL static=$VAULT_TRIAL
else
    name=vault-$version-$musl
    build
    dynamic=$target_dir/$gnu/release/vault static=$target_dir/$musl/release/vault
fi
install -m 755 "$dynamic" "$stage/vault"
"$stage/vault" man "$stage/man" >/dev/null
# The shells ask the program itself, which knows snapshots, sources and vaults.
"$stage/vault" completions --dynamic bash >"$stage/completions/vault.bash"
"$stage/vault" completions --dynamic zsh >"$stage/completions/_vault"
"$stage/vault" completions --dynamic fish >"$stage/completions/vault.fish"
gzip -9n "$stage"/man/*.1

# The tarball. packaging/Containerfile takes the executable from the same folder.
mkdir "$stage/static"
install -m 755 "$static" "$stage/static/vault"
mkdir "$stage/$name"
cp -r "$stage/static/vault" "$stage/man" "$stage/completions" README.md CHANGELOG.md SECURITY.md SPEC.md LICENSE docs \
    packaging/systemd tests/reader.py "$stage/$name/"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C "$stage" -c "$name" |
    gzip -9n >"$dist/$name.tar.gz"

# The source, from which Arch, Homebrew and Nix build.
if [ -z "${VAULT_TRIAL:-}" ] && git rev-parse --verify --quiet HEAD >/dev/null; then
    git archive --prefix="vault-$version/" HEAD | gzip -9n >"$dist/vault-$version.tar.gz"
fi

maintainer=${VAULT_MAINTAINER:-$(sed -n 's/^maintainer = "\(.*\)"/\1/p' Cargo.toml)}
if cargo deb --version >/dev/null 2>&1; then
    # Debian wants a changelog of its packaging.
    printf 'vault-backup (%s-1) unstable; urgency=medium\n\n  * What changed: CHANGELOG.md.\n\n -- %s  %s\n' \
        "$version" "$maintainer" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$stage/changelog.gz"
    cargo deb --no-build --no-strip --maintainer "$maintainer" ${VAULT_TRIAL:+--fast --deb-revision trial} --output "$dist/" >/dev/null
else
    echo "No Debian package: cargo-deb is not installed." >&2
fi
if cargo generate-rpm --version >/dev/null 2>&1; then
    cargo generate-rpm ${VAULT_TRIAL:+--set-metadata 'release = "trial"'} --set-metadata "vendor = \"$maintainer\"" \
        --source-date "$SOURCE_DATE_EPOCH" --output "$dist/"
else
    echo "No RPM: cargo-generate-rpm is not installed." >&2
fi
(cd "$dist" && sha256sum -- * >SHA256SUMS && cat SHA256SUMS)
