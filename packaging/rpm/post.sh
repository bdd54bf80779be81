# After the package came or was updated: systemd reads its units.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
fi
