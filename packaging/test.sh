#!/usr/bin/env bash
# Installs the Debian package of target/dist in a fresh system (debootstrap), and uses it there: a vault is made, kept up, checked
# and restored from, the manual is read, and after removal nothing of the package is left. Needs root and debootstrap.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
dist=${CARGO_TARGET_DIR:-target}/dist
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include=man-db,bash-completion bookworm "$root" "${VAULT_DEBIAN_MIRROR:-http://deb.debian.org/debian}" \
    >"$root.log" || { tail -20 "$root.log"; exit 1; }
rm -f "$root.log"
cp "$dist"/*.deb "$root/tmp/"
chroot "$root" /bin/sh -euc '
    # Without this the minimal system keeps no manual pages.
    rm -f /etc/dpkg/dpkg.cfg.d/docker
    dpkg -i /tmp/*.deb
    export VAULT_PASSWORD=secret HOME=/root
    mkdir /root/files && echo text > /root/files/one
    vault snapshot --init --repo /root/store /root/files
    echo more >> /root/files/one
    vault snapshot --repo /root/store /root/files
    vault check --read-data --repo /root/store
    vault restore latest --to /root/back --repo /root/store
    diff -r /root/files /root/back/files
    man -w vault vault-snapshot
    test -s /usr/share/bash-completion/completions/vault
    test -s /usr/lib/systemd/system/vault-run.timer
    dpkg -r vault
    ! command -v vault
'
echo "The package was installed, used and removed."
