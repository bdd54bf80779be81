#!/usr/bin/env bash
# Installs the Debian package of target/dist in a fresh system (debootstrap), and uses it there: a vault is made, kept up, checked
# and restored from, what root's own schedule would start is started, the manual is read, a shell completes a line, and after
# removal nothing of the package is left. Needs root and debootstrap; where they are not there, it says so and that it was skipped.
#
# VAULT_DEBIAN_MIRROR is where the system comes from; VAULT_DEBIAN_SYSTEM is a folder with one that is fresh, and is copied instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
dist=${CARGO_TARGET_DIR:-target}/dist
skip() {
    echo "skipped: the Debian package was not tried: $1"
    exit 0
}
packages=("$dist"/*.deb)
[ -e "${packages[0]}" ] || skip "there is none in $dist (packaging/build.sh makes it)"
[ "$(id -u)" = 0 ] || skip "only root can make a system to install it in"
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
if [ -n "${VAULT_DEBIAN_SYSTEM:-}" ]; then
    cp -a "$VAULT_DEBIAN_SYSTEM/." "$root/"
else
    command -v debootstrap >/dev/null || skip "debootstrap is not installed"
    debootstrap --variant=minbase --include=man-db,bash-completion bookworm "$root" "${VAULT_DEBIAN_MIRROR:-http://deb.debian.org/debian}" \
        >"$root.log" || { tail -20 "$root.log"; exit 1; }
    rm -f "$root.log"
fi
cp "${packages[@]}" "$root/tmp/"
cat >"$root/tmp/use.sh" <<'END'
set -eux
# Without this the minimal system keeps no manual pages.
rm -f /etc/dpkg/dpkg.cfg.d/docker
dpkg -i /tmp/*.deb
export VAULT_PASSWORD=secret HOME=/root LANG=C.UTF-8
mkdir /root/files
echo text > /root/files/one
vault init --repo /root/store
vault snapshot --repo /root/store /root/files
echo more >> /root/files/one
vault snapshot --repo /root/store /root/files
vault check --read-data --repo /root/store
vault restore latest --to /root/back --repo /root/store
diff -r /root/files /root/back/files

# The manual: a page for the program and one for each command, which man finds.
man -w vault vault-snapshot vault-restore vault-key-add
man vault-restore | cat | grep -q -- --in-place

# A shell that loads completions as Debian's does completes commands, and ids of snapshots, by asking the program.
test -s /usr/share/zsh/vendor-completions/_vault
test -s /usr/share/fish/vendor_completions.d/vault.fish
cat > /tmp/complete.bash <<'BASH'
source /usr/share/bash-completion/bash_completion
complete_line() {
    COMP_LINE="$*" COMP_POINT=${#COMP_LINE} COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_TYPE=9 COMPREPLY=()
    _completion_loader "$1" || [ $? = 124 ]
    local function
    function=$(complete -p "$1" | sed 's/.*-F \([^ ]*\).*/\1/')
    "$function" "$1" "${@: -1}" "${@: -2:1}"
    printf '%s\n' "${COMPREPLY[@]}"
}
complete_line vault snap
complete_line vault --repo /root/store ls late
BASH
bash /tmp/complete.bash | sort > /tmp/completed
grep -q '^snapshot' /tmp/completed
grep -q '^latest' /tmp/completed

# What root's own schedule starts does what the configuration in its place says.
service=/usr/lib/systemd/system/vault-run.service
test -s /usr/lib/systemd/system/vault-run.timer
mkdir /etc/vault
cat > /etc/vault/vault.toml <<'TOML'
[vaults.main]
path = "/root/store"
password-file = "/etc/vault/password"
[sources.files]
paths = ["/root/files"]
every = "1d"
TOML
(umask 077 && echo secret > /etc/vault/password && mkdir /var/lib/vault)
unset VAULT_PASSWORD
started=$(sed -n 's/^ExecStart=//p' $service)
$started
vault list --config /etc/vault/vault.toml --state /var/lib/vault --source files | grep -q '^20'

dpkg -r vault
hash -r
if command -v vault; then exit 1; fi
folders="/usr/share/man /usr/share/bash-completion /usr/share/zsh /usr/share/fish /usr/lib/systemd"
if find $folders -name '*vault*' 2>/dev/null | grep .; then exit 1; fi
# What the user made stays.
test -s /root/store/VAULT
test -s /etc/vault/vault.toml
END
chroot "$root" /bin/bash /tmp/use.sh
echo "The package was installed, used and removed: $(basename "${packages[0]}")"
