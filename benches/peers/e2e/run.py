#!/usr/bin/env python3
"""Loopback load: every server on core 0, wrk with one thread on core 1, rounds interleaved.

Started by `peers e2e [--body 1024] [--rounds 5] [--secs 2] [--conns 32] [--only raw,proxy] [--json]`,
which says in PEERS where it is itself. Needs wrk and taskset, and for the servers nginx and varnish
those programs; what is not installed is left out. `proxy` is the example of that name, from
`cargo build --profile lto --example proxy`.
"""
import argparse, json, os, re, shutil, socket, statistics, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
PEERS = os.environ.get("PEERS", os.path.join(HERE, "..", "target", "release", "peers"))
PROXY = os.environ.get("PROXY", os.path.join(HERE, "..", "..", "..", "target", "lto", "examples", "proxy"))
ALL = ["raw", "raw-dyn", "tower-readthrough", "tower-readthrough-store", "quick_cache", "quick_cache+ttl+coalesce",
       "moka-future+get_with", "tower-http-cache", "axum-response-cache", "http-cache-tower", "hitbox-tower",
       "hitbox-tower-bincode", "tower-cache", "proxy", "nginx", "varnish"]
PATH = "/api/v1/items/0000001"

NGINX = """
daemon off; master_process off; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on;
  keepalive_timeout 600; keepalive_requests 1000000000;
  open_file_cache max=100 inactive=600s; open_file_cache_valid 600s;
  client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;
  uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  proxy_cache_path {dir}/cache keys_zone=c:10m max_size=200m inactive=1h use_temp_path=off;
  server {{ listen 127.0.0.1:{port};
    location / {{ proxy_pass http://127.0.0.1:{back}; proxy_cache c; proxy_cache_valid 200 1h;
                  proxy_ignore_headers Vary; }} }}
}}
"""
VCL = """vcl 4.1;
backend default {{ .host = "127.0.0.1"; .port = "{back}"; }}
sub vcl_backend_response {{ set beresp.ttl = 1h; }}
"""

# Title in Markdown, key in JSON, digits. What a core can do is computed from the CPU time that a request
# takes, and so are the ratios to it: unlike what wrk sees, that holds on a busy machine too.
COLUMNS = [("req/s median", "rps", 0), ("min", "rps_min", 0), ("max", "rps_max", 0), ("x raw axum", "x_raw", 2),
           ("p50 ms", "p50_ms", 2), ("p99 ms", "p99_ms", 2), ("CPU us/req", "cpu_us", 2),
           ("req/s per core", "per_core", 0), ("x raw axum", "per_core_x_raw", 2), ("x nginx", "per_core_x_nginx", 2),
           ("x varnish", "per_core_x_varnish", 2)]


def milliseconds(text):
    number, unit = re.match(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60000}[unit]


def cpu_seconds(pid):
    """Of a process and its children so far, user and system."""
    times, parents = {}, {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as stat:
                fields = stat.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents[int(entry)] = int(fields[1])
        times[int(entry)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    total = 0
    for process, time_used in times.items():
        while process in parents and process != pid:
            process = parents[process]
        total += time_used if process == pid else 0
    return total


def wait_for(port):
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nothing listens on {port}")


class Servers:
    """All on core 0, in front of one origin."""

    def __init__(self, body, base_port):
        self.body, self.back = body, base_port
        self.scratch = tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        os.chmod(self.scratch, 0o755)
        self.processes, self.ports = {}, {}

    def start(self, name, port):
        command = self.command(name, port)
        if command is None:
            print(f"{name} is not there", file=sys.stderr)
            return
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.processes[port] = subprocess.Popen(["taskset", "-c", "0", *command], **quiet)
        wait_for(port)
        if port != self.back:
            self.ports[name] = port

    def command(self, name, port):
        where = {"dir": self.scratch, "port": port, "back": self.back}
        if name == "nginx":
            config = self.write("nginx.conf", NGINX.format(**where))
            return shutil.which("nginx") and ["nginx", "-c", config, "-p", self.scratch]
        if name == "varnish":
            config = self.write("vcl", VCL.format(**where))
            return shutil.which("varnishd") and ["varnishd", "-F", "-n", f"{self.scratch}/v", "-f", config,
                                                 "-a", f"127.0.0.1:{port}", "-s", "malloc,256m"]
        if name == "proxy":
            return [PROXY, "--origin", f"http://127.0.0.1:{self.back}", "--listen", f"127.0.0.1:{port}"] \
                if os.path.exists(PROXY) else None
        return [PEERS, "serve", "--cand", name, "--port", str(port), "--body", str(self.body)]

    def write(self, name, text):
        path = f"{self.scratch}/{name}"
        with open(path, "w") as file:
            file.write(text)
        return path

    def stop(self):
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(self.scratch, ignore_errors=True)


def load(port, pid, connections, seconds):
    """Requests per second, p50, p99, and the server's CPU time per request in us."""
    before = cpu_seconds(pid)
    wrk = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    out = subprocess.run([*wrk, f"http://127.0.0.1:{port}{PATH}"], capture_output=True, text=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(out)
    used = cpu_seconds(pid) - before
    percentile = lambda percent: milliseconds(re.search(rf"^ +{percent}% +(\S+)", out, re.M)[1])
    requests = int(re.search(r"(\d+) requests in", out)[1])
    return (float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]), percentile(50), percentile(99), used * 1e6 / requests)


def figures(runs, name):
    """One row: medians; ratios are taken round by round."""
    def ratio(to, of):
        pairs = zip(runs[name], runs.get(to, []))
        return statistics.median(of(one, other) for one, other in pairs) if to in runs else None
    rates = [run[0] for run in runs[name]]
    rate, p50, p99, cpu = (statistics.median(run[at] for run in runs[name]) for at in range(4))
    per_core = lambda to: ratio(to, lambda one, other: other[3] / one[3])
    row = [rate, min(rates), max(rates), ratio("raw", lambda one, other: one[0] / other[0]), p50, p99, cpu, 1e6 / cpu,
           per_core("raw"), per_core("nginx"), per_core("varnish")]
    return {key: number for (_, key, _), number in zip(COLUMNS, row)}


def main():
    parser = argparse.ArgumentParser()
    for name, default in (("body", 1024), ("rounds", 5), ("secs", 2), ("conns", 32), ("base-port", 18100)):
        parser.add_argument("--" + name, type=int, default=default)
    parser.add_argument("--only", default=",".join(ALL))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    servers, runs = Servers(args.body, args.base_port), {}
    try:
        servers.start("raw-dyn", args.base_port)
        for at, name in enumerate(args.only.split(",")):
            servers.start(name, args.base_port + 1 + at)
        for warm_up in [True] + [False] * args.rounds:
            for name, port in servers.ports.items():
                run = load(port, servers.processes[port].pid, args.conns, 1 if warm_up else args.secs)
                runs.setdefault(name, []).extend([] if warm_up else [run])
    finally:
        servers.stop()
    rows = {name: figures(runs, name) for name in runs}
    if args.json:
        return print(json.dumps(rows))
    print(f"Loopback, {args.body} bytes, {args.conns} connections, {args.rounds} rounds of {args.secs} s\n")
    print(f"| server | {' | '.join(title for title, _, _ in COLUMNS)} |\n|---|{'--:|' * len(COLUMNS)}")
    for name, row in rows.items():
        cells = ["–" if row[key] is None else f"{row[key]:.{digits}f}" for _, key, digits in COLUMNS]
        print(f"| {name} | {' | '.join(cells)} |")


main()
