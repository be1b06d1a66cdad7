"""What to do: one text each. docs/troubleshooting.md has the same at more length."""

from __future__ import annotations

SNIPPET = "`harp setup` prints the whole block for nginx, Apache, Caddy and others"

NAME = "put the name into DNS, or set HP_PUBLIC_URL to the URL that browsers use for Nextcloud"
REACH = "check that the reverse proxy runs, and that HP_PUBLIC_URL is the URL that browsers use for Nextcloud"
TLS = "install a certificate that browsers trust, or add its CA to the system's store where HaRP runs"
TLS_CHAIN = "configure the full chain (nginx: ssl_certificate fullchain.pem), or add its CA where HaRP runs"
TLS_NAME = "install a certificate for this name, or set HP_PUBLIC_URL to the name that it has"
RENEW = "renew the certificate of the reverse proxy and reload it"
CLOCK = "set the clocks by NTP (timedatectl set-ntp true) on both hosts"
FORWARD = (
    "add a rule for /exapps/ to the reverse proxy, before its other rules, that forwards to port 8780 of HaRP; "
    f"if browsers use another URL for Nextcloud, set HP_PUBLIC_URL. {SNIPPET}"
)
UPSTREAM = "correct the address of HaRP in the reverse proxy's rule for /exapps/ (port 8780, reachable from there)"
BANNED = "harp bans lift ADDRESS (see `harp bans`), then find out who earned it; set HP_TRUSTED_PROXY_IPS"
OTHER_HARP = "correct the port in the reverse proxy's rule for /exapps/, or set HP_PUBLIC_URL"
PREFIX = (
    'make the reverse proxy forward the path unchanged. nginx: "proxy_pass http://harp;" without a slash at the end; '
    f"Apache: the same path on both sides of ProxyPass; Traefik: no stripPrefix; Caddy: handle, not handle_path. "
    f"{SNIPPET}"
)
UPGRADE = (
    "pass WebSockets on. nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
    f'proxy_set_header Connection $harp_connection; Apache: "upgrade=websocket" on ProxyPass. {SNIPPET}'
)
BODY = "lift the limit. nginx: client_max_body_size 0; Apache: LimitRequestBody 0; at Cloudflare it depends on the plan"
BUFFER = (
    "switch buffering off for /exapps/. nginx: proxy_buffering off; Apache: flushpackets=on; Caddy: flush_interval -1"
)
HOST = "pass the name on. nginx: proxy_set_header Host $http_host; Apache: ProxyPreserveHost On"
PROTO = "pass the scheme on. nginx: proxy_set_header X-Forwarded-Proto $scheme; for others see `harp setup`"
OF_STEP = {"websocket": UPGRADE, "body": BODY, "stream": BUFFER}

MEMBERS = "see `harp members`; with replicas, check HP_CLUSTER_URL, the store, and the way to port 8782 of the others"
CLUSTER = "compare HaRP's Role with docs/kubernetes.md, and check HP_K8S_API_SERVER and the token"

NEXTCLOUD_URL = "correct NC_INSTANCE_URL: it has to answer from where HaRP runs (try curl there)"
APPAPI = "enable AppAPI (occ app:enable app_api), or correct NC_INSTANCE_URL"
DOMAINS = "add the host of NC_INSTANCE_URL to trusted_domains in Nextcloud's config.php"
MAINTENANCE = "end the maintenance mode: occ maintenance:mode --off"
NEXTCLOUD_LOG = "see the log of Nextcloud (nextcloud.log) and of its web server"
KEY = "set HP_SHARED_KEY to the key of the deploy daemon in Nextcloud (settings of AppAPI), or the other way round"
PROVE_KEY = "name an ExApp that is installed: harp doctor --app ID"

DESCRIPTORS = "raise the limit of open files"
LAG = "look for other load on this host; `harp log-level info --access all` shows what is asked"
TUNNEL_PORT = "see whether HaRP runs and whether another program has the port of HP_FRP_ADDRESS"
TUNNEL_OPEN = (
    "publish the port and open it in firewalls: docker run -p 8782:8782, and HP_FRP_ADDRESS=0.0.0.0:8782; "
    "only tunnel clients on other hosts need it"
)
TUNNEL_CERTIFICATE = "remove the file and restart HaRP, which makes a new one; then renew its copies on remote engines"
NO_TUNNEL = (
    "see whether the ExApp's container runs and what its frpc logs (docker logs nc_app_ID); it must reach port 8782 of "
    "HaRP, with the files of HP_CERTS_DIR/frp and the name and port of the ExApp"
)
NO_ENGINE_TUNNEL = "start frpc on that engine's host (`harp engine add` prints how); it must reach port 8782 of HaRP"
TUNNEL_NAME = 'give the tunnel the name of the ExApp: name = "ID" in the [[proxies]] of its frpc.toml'
SILENT = "start the ExApp, and make it listen where frpc.toml points to (localPort, or the socket of its plugin)"
EXAPP = "start the ExApp, and make it listen on the port that Nextcloud knows (its container's log says more)"
SOCKET = "mount the socket into HaRP's container: -v /var/run/docker.sock:/var/run/docker.sock"
SOCKET_RIGHTS = "give HaRP's user access to the socket: add it to the socket's group (docker run --group-add)"
ENGINE = "start the engine (systemctl start docker), or correct HP_DOCKER_HOST"
BAN_PROXY = "harp bans lift ADDRESS; if it is a reverse proxy, set HP_TRUSTED_PROXY_IPS to its address"
SETTING = "correct the variable; `harp check` shows all of them"


def no_address(header: str) -> str:
    """Return how clients' addresses are passed on."""
    if header != "x-forwarded-for":
        return f"make the reverse proxy set {header} itself, or set HP_REAL_IP_HEADER to the header that it sets"
    return (
        "make the reverse proxy add the client's address. nginx: proxy_set_header X-Forwarded-For "
        f"$proxy_add_x_forwarded_for; {SNIPPET}"
    )


def trusted_proxy(peer: str) -> str:
    """Return who has to be trusted."""
    return f"set HP_TRUSTED_PROXY_IPS to the reverse proxy's address: HP_TRUSTED_PROXY_IPS={peer}"
