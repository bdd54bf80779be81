#!/usr/bin/env bash
# Tries what packaging/build.sh has put into target/dist, as its users would.
#
# The Debian package is installed in a fresh Debian system: a vault is made, kept up, checked, compared and restored from; what root's
# own schedule would start is started; the manual is read; bash, zsh and fish complete a line; and after removal nothing of the package is
# left. The RPM has the same files, is installed in such a system by rpm, used and removed. The tarball has the checksum that is
# given, and its executable makes a vault and restores from it in a folder where there is nothing else, no C library either.
#
# Needs root, and debootstrap or a fresh Debian system in the folder VAULT_DEBIAN_SYSTEM; rpm for the RPM. What cannot be tried is said
# to be skipped. The system is made once, in target/debian-system (VAULT_DEBIAN_MIRROR is where it comes from), and copied for each trial.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target_dir=${CARGO_TARGET_DIR:-target}
dist=$target_dir/dist
system=${VAULT_DEBIAN_SYSTEM:-$target_dir/debian-system}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tried=0

skipped() {
    echo "skipped: $1 was not tried: $2"
}

# Why no system can be had to install a package in; nothing if it is there afterwards.
no_system() {
    [ "$(id -u)" = 0 ] || { echo "only root can make a system to install it in" && return; }
    [ ! -d "$system/usr" ] || return 0
    command -v debootstrap >/dev/null || { echo "debootstrap is not installed" && return; }
    debootstrap --variant=minbase --include=man-db,bash-completion,zsh,fish bookworm "$work/new" \
        "${VAULT_DEBIAN_MIRROR:-http://deb.debian.org/debian}" >"$work/log" 2>&1 ||
        { tail -20 "$work/log" >&2 && echo "debootstrap failed" && return; }
    mkdir -p "$(dirname "$system")"
    mv "$work/new" "$system"
}

# A fresh system with the script that uses the program, and with folders that it lacks.
fresh() {
    cp -a "$system" "$work/$1"
    for folder in "${@:2}"; do
        mkdir -p "$work/$1/$folder"
    done
    # With this the minimal system keeps no manual pages.
    rm -f "$work/$1/etc/dpkg/dpkg.cfg.d/docker"
    use >"$work/$1/tmp/use.sh"
    files "$work/$1" >"$work/$1.before"
}

# The files of a system that packages have a say in. The C library writes a cache anew for whoever installs.
files() {
    (cd "$1" && find usr etc var/lib/systemd ! -path etc/ld.so.cache | sort)
}

# Nothing of a package that was removed is left, and what the user made stays.
gone() {
    rm -r "$work/$1/etc/vault"
    files "$work/$1" >"$work/$1.after"
    diff "$work/$1.before" "$work/$1.after"
    [ -s "$work/$1/root/store/VAULT" ]
}

use() {
    cat <<'USE'
set -eu
export VAULT_PASSWORD=secret HOME=/root LANG=C.UTF-8
mkdir /root/files
echo text > /root/files/one
vault init --repo /root/store
vault snapshot --repo /root/store /root/files
echo more >> /root/files/one
vault diff latest --repo /root/store --source /root/files | grep one
vault snapshot --repo /root/store /root/files
vault check --read-data --repo /root/store
vault restore latest --to /root/back --repo /root/store
diff -r /root/files /root/back/files

# The manual: a page for the program and one for each command, which man finds and can show.
vault man /tmp/man >/dev/null
for page in /tmp/man/*.1; do man -w "$(basename "$page" .1)" >/dev/null; done
man vault-restore | cat | grep -q -- --in-place

# Shells that load completions as the system's do complete commands, and ids of snapshots, by asking the program.
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
bash /tmp/complete.bash > /tmp/completed
grep -q '^snapshot' /tmp/completed
grep -q '^latest' /tmp/completed
fish --command 'complete --do-complete "vault snap"; complete --do-complete "vault --repo /root/store ls late"' > /tmp/completed
grep -q '^snapshot' /tmp/completed
grep -q '^latest' /tmp/completed
# zsh runs the file at the first Tab, and that must be answered already. Fedora's folder is not among Debian's.
zsh -f > /tmp/completed <<'ZSH'
typeset -A _comps
compdef() { _comps[$2]=$1 }
_describe() { local list=${@[-1]}; print -rl -- ${(P)list} }
fpath+=(/usr/share/zsh/site-functions)
autoload -U _vault
words=(vault --repo /root/store ls late) CURRENT=5
_vault
ZSH
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

# The documents and the second reader.
test -s /usr/share/doc/vault-backup/docs/emergency.md
test -s /usr/share/doc/vault-backup/reader.py
USE
}

debs=("$dist"/*.deb) rpms=("$dist"/*.rpm) tars=("$dist"/vault-*-*.tar.gz)
missing="there is none in $dist (packaging/build.sh makes it)"
[ ! -e "$dist/SHA256SUMS" ] || (cd "$dist" && sha256sum --check --quiet SHA256SUMS)

if [ ! -e "${debs[0]}" ]; then
    skipped "the Debian package" "$missing"
elif why=$(no_system) && [ -n "$why" ]; then
    skipped "the Debian package" "$why"
else
    fresh deb
    cp "${debs[0]}" "$work/deb/tmp/vault.deb"
    chroot "$work/deb" dpkg -i /tmp/vault.deb
    chroot "$work/deb" /bin/bash -x /tmp/use.sh
    chroot "$work/deb" dpkg --purge vault-backup
    gone deb
    echo "The Debian package was installed, used and removed: $(basename "${debs[0]}")"
    tried=$((tried + 1))
fi

if [ ! -e "${rpms[0]}" ]; then
    skipped "the RPM" "$missing"
elif ! command -v rpm >/dev/null; then
    skipped "the RPM" "rpm is not installed"
elif why=$(no_system) && [ -n "$why" ]; then
    skipped "the RPM" "$why"
else
    rpm --checksig "${rpms[0]}"
    if [ -e "${debs[0]}" ]; then
        # The same files as in the Debian package, but for those whose names the systems' rules give.
        dpkg-deb --contents "${debs[0]}" | sed -n 's/^-.* \.\(\/.*\)/\1/p' |
            sed 's#zsh/vendor-completions#zsh/site-functions#; s#doc/vault-backup/copyright#licenses/vault-backup/LICENSE#
                s#doc/vault-backup/changelog.gz#doc/vault-backup/CHANGELOG.md#' |
            grep -v 'changelog.Debian.gz$' | sort >"$work/deb.list"
        rpm --query --package --queryformat '[%{FILEMODES:perms} %{FILENAMES}\n]' "${rpms[0]}" | sed -n 's/^-[^ ]* //p' |
            sort >"$work/rpm.list"
        diff "$work/deb.list" "$work/rpm.list"
        echo "Both packages have the same $(wc -l <"$work/rpm.list") files."
    fi
    # Fedora's own package of folders has these.
    fresh rpm usr/share/licenses usr/share/zsh/site-functions
    # The system knows nothing of rpm: what the package requires is compared with what the system has by running the program.
    rpm=(rpm --root "$(realpath "$work/rpm")" --dbpath /var/lib/rpm)
    "${rpm[@]}" --initdb
    "${rpm[@]}" --install --nodeps "${rpms[0]}"
    "${rpm[@]}" --verify --nodeps vault-backup
    chroot "$work/rpm" /bin/bash -x /tmp/use.sh
    "${rpm[@]}" --erase vault-backup
    gone rpm
    echo "The RPM was installed, used and removed: $(basename "${rpms[0]}")"
    tried=$((tried + 1))
fi

if [ ! -e "${tars[0]}" ]; then
    skipped "the tarball" "$missing"
elif [ "$(id -u)" != 0 ]; then
    skipped "the tarball" "only root can change into a folder where there is nothing else"
else
    mkdir "$work/tar" "$work/empty" "$work/empty/files"
    tar -C "$work/tar" --strip-components 1 -xf "${tars[0]}"
    if ldd "$work/tar/vault" >/dev/null 2>&1 && ! ldd "$work/tar/vault" | grep -q 'statically linked'; then
        skipped "the tarball" "its executable is not static (VAULT_TRIAL)"
    else
        for file in man/vault.1.gz completions/_vault docs/emergency.md LICENSE reader.py systemd/vault-run.timer; do
            [ -s "$work/tar/$file" ]
        done
        cp "$work/tar/vault" "$work/empty/"
        echo text >"$work/empty/files/one"
        # Without a PATH, env would not find chroot itself.
        chroot=$(command -v chroot)
        in_empty() {
            env -i VAULT_PASSWORD=secret VAULT_REPO=/store VAULT_STATE_DIR=/state "$chroot" "$work/empty" /vault "$@"
        }
        in_empty init
        in_empty snapshot /files
        in_empty check --read-data
        in_empty restore latest --to /back
        diff -r "$work/empty/files" "$work/empty/back/files"
        echo "The tarball's executable ran where there is nothing else: $(basename "${tars[0]}")"
        tried=$((tried + 1))
    fi
fi
echo "$tried of 3 were tried."
