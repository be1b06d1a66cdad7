#!/bin/sh
# Starts an ExApp behind a HaRP: its tunnel client beside it, and the app itself.
#
#     ENTRYPOINT ["/start.sh", "python3", "main.py"]
#
# With HP_SHARED_KEY in the environment (AppAPI puts it there unless the daemon deploys directly) frpc connects
# HP_FRP_ADDRESS:HP_FRP_PORT with the app's unix socket, HP_EXAPP_SOCK. Without it, only the app runs.
# The container ends when the app ends, with the app's exit code. Signals reach the app. A tunnel client that ends is
# started again. Any POSIX shell and any user will do; nothing is written but frpc.toml.

set -u

[ $# -gt 0 ] || { echo "start.sh: say which command is the app: ENTRYPOINT [\"/start.sh\", \"python3\", \"main.py\"]" >&2; exit 64; }
[ -n "${HP_SHARED_KEY:-}" ] || exec "$@"

certificates=/certs/frp
pause=2 # seconds before a tunnel client that has ended is started again
umask_before=$(umask)

missing=
for name in HP_FRP_ADDRESS HP_FRP_PORT APP_ID APP_PORT; do
    eval "[ -n \"\${$name:-}\" ]" || missing="$missing $name"
done
[ -z "$missing" ] || { echo "start.sh: HP_SHARED_KEY is set, but not$missing" >&2; exit 64; }
command -v frpc >/dev/null || { echo "start.sh: there is no frpc in $PATH: copy it into the image" >&2; exit 69; }

quoted() { # text -> a TOML basic string
    printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"]/\\&/g')"
}

# Everything frpc needs to know, on standard output.
configuration() {
    printf 'serverAddr = %s\n' "$(quoted "$HP_FRP_ADDRESS")"
    echo "serverPort = $HP_FRP_PORT"
    echo "loginFailExit = false"
    if [ -d "$certificates" ]; then
        echo "transport.tls.enable = true"
        echo "transport.tls.certFile = \"$certificates/client.crt\""
        echo "transport.tls.keyFile = \"$certificates/client.key\""
        echo "transport.tls.trustedCaFile = \"$certificates/ca.crt\""
        echo "transport.tls.serverName = \"harp.nc\""
    else
        echo "transport.tls.enable = false"
    fi
    printf 'metadatas.token = %s\n' "$(quoted "$HP_SHARED_KEY")"
    echo
    echo "[[proxies]]"
    echo "remotePort = $APP_PORT"
    echo "type = \"tcp\""
    printf 'name = %s\n' "$(quoted "$APP_ID")"
    echo "[proxies.plugin]"
    echo "type = \"unix_domain_socket\""
    printf 'unixPath = %s\n' "$(quoted "${HP_EXAPP_SOCK:-/tmp/exapp.sock}")"
}

# The first of these places that can be written: / cannot in a read-only container, nor by a plain user.
for directory in "" /run /tmp /dev/shm "${HOME:-}"; do
    config="$directory/frpc.toml"
    umask 077 # the key is in it
    { rm -f "$config" && configuration >"$config"; } 2>/dev/null && break
    config=
done
umask "$umask_before"
[ -n "$config" ] || { echo "start.sh: no place for frpc.toml: mount a tmpfs at /tmp" >&2; exit 73; }

if [ -d "$certificates" ]; then
    echo "Found $certificates directory. Creating configuration with TLS certificates, $config."
    for file in client.crt client.key ca.crt; do
        [ -r "$certificates/$file" ] || echo "start.sh: $certificates/$file cannot be read: the tunnel will not come up" >&2
    done
else
    echo "No $certificates directory. Creating configuration without TLS certificates, $config."
fi

# The tunnel client, again and again. TERM ends it.
tunnel() {
    trap 'kill "${!:-}" 2>/dev/null; exit 0' TERM # $! is what was started last: frpc, or the pause
    trap '' INT HUP QUIT USR1 USR2
    while :; do
        frpc -c "$config" &
        wait $!
        echo "start.sh: the tunnel client has ended ($?), next try in $pause s" >&2
        sleep $pause &
        wait $!
    done
}

# The app gets every signal, also one that comes before it is there.
app=
early=
pass() {
    passed=1
    if [ -n "$app" ]; then kill -s "$1" "$app" 2>/dev/null; else early=$1; fi
}
for signal in TERM HUP QUIT USR1 USR2; do
    trap "pass $signal" $signal
done
trap 'pass TERM' INT # a shell's background commands ignore INT: Ctrl-C would do nothing

tunnel </dev/null &
tunnel=$!
exec 3<&0 # a shell gives background commands /dev/null to read
"$@" <&3 3<&- &
app=$!
exec 3<&-
[ -z "$early" ] || kill -s "$early" "$app" 2>/dev/null

# A signal interrupts `wait`; then the app goes on, or has ended meanwhile.
status=127
while :; do
    passed=
    wait "$app"
    code=$?
    [ $code -eq 127 ] || status=$code
    [ -n "$passed" ] || break
done
kill "$tunnel" 2>/dev/null
exit $status
