# After the package went: systemd forgets its units. cargo-generate-rpm gives folders to no package, so rpm would leave these.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
fi
if [ "$1" = 0 ]; then
    rmdir /usr/share/doc/vault-backup/docs/images /usr/share/doc/vault-backup/docs /usr/share/doc/vault-backup /usr/share/licenses/vault-backup 2>/dev/null || :
fi
