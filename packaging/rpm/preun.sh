# Before the package goes for good (1 or more would be an update): the timer, if root enabled it, ends.
if [ "$1" = 0 ] && [ -x /usr/bin/systemctl ]; then
    systemctl --no-reload disable --now vault-run.timer >/dev/null 2>&1 || :
fi
