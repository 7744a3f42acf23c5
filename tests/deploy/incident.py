#!/usr/bin/env python3
"""A scripted incident, seen by a real Prometheus: do all panels show something, and do the right alerts fire?

Real broker (KAFKA_BOOTSTRAP_SERVERS), real Postrider, real HTTP receivers on loopback, real Prometheus with our rules (waits shortened, nothing
else changed). Endpoints die and recover, a webhook is paused, dead letters are replayed, the instance goes away. Takes about two minutes.
Everything stays in target/incident; `series.json` there is what pictures.py draws.

usage: incident.py POSTRIDER PROMETHEUS
"""

import http.server
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "target" / "incident"
DASHBOARDS = ["overview.json", "webhook.json", "kafka-and-process.json"]
DYING = 8
MUST_FIRE = {"PostriderSuccessBurnsFast", "PostriderSuccessBurnsSlowly", "PostriderDeadLetters", "PostriderWebhookTripped"}


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Receivers:
    """One server; the path is the endpoint. `failing` holds those that answer 503."""

    def __init__(self):
        self.failing, self.arrived, self.lock = set(), {}, threading.Lock()
        outer = self

        class Endpoint(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with outer.lock:
                    fails = self.path in outer.failing
                    if not fails:
                        outer.arrived[self.path] = outer.arrived.get(self.path, 0) + 1
                self.send_response(503 if fails else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path):
        return f"http://127.0.0.1:{self.server.server_port}{path}"


class Incident:
    def __init__(self, postrider, prometheus):
        self.postrider, self.prometheus = postrider, prometheus
        FOLDER.mkdir(parents=True, exist_ok=True)
        self.run = f"incident-{int(time.time())}"
        self.telemetry, self.port = free_port(), free_port()
        self.receivers = Receivers()
        self.children = []
        self.environment = dict(os.environ, POSTRIDER_SECRET_KEY="MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", NO_COLOR="1")
        self.config = FOLDER / "postrider.toml"
        # The source topic is made by the same tool, under a prefix of its own, so that no other tool is needed.
        self.source = f"events.{self.run}.alerts"
        self.config.write_text(f"""
[kafka]
bootstrap_servers = "{os.environ['KAFKA_BOOTSTRAP_SERVERS']}"
group_id = "{self.run}"
topic_prefix = "{self.run}."
dispatch_partitions = 4
delay_partitions = 1
[intake]
topics = ["{self.source}"]
start = "earliest"
[outbound]
allow_networks = ["127.0.0.0/8"]
breaker_probe_seconds = 5
[history]
store = "sqlite:{FOLDER}/history-{self.run}.db"
[web]
listen = ""
telemetry_listen = "127.0.0.1:{self.telemetry}"
[log]
level = "warn"
""")

    def command(self, *arguments, **environment):
        done = subprocess.run([self.postrider, "--config", self.config, *arguments], env=dict(self.environment, **environment),
                              capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            sys.exit(f"postrider {' '.join(arguments)}: {done.stderr or done.stdout}")
        return done.stdout

    def start(self, name, arguments):
        log = open(FOLDER / f"{name}.log", "w")
        child = subprocess.Popen(arguments, stdout=log, stderr=log, env=self.environment)
        self.children.append(child)
        return child

    def get(self, port, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.read().decode()

    def wait(self, what, condition, seconds=60):
        end = time.time() + seconds
        while time.time() < end:
            try:
                if condition():
                    return
            except (OSError, urllib.error.HTTPError):
                pass
            time.sleep(0.5)
        sys.exit(f"not within {seconds} s: {what}; see {FOLDER}")

    def api(self, path, **query):
        return json.loads(self.get(self.port, f"/api/v1/{path}?{urllib.parse.urlencode(query)}"))["data"]

    def value(self, query):
        result = self.api("query", query=query)["result"]
        return float(result[0]["value"][1]) if result else 0.0

    def emit(self, count):
        self.command("emit", "job.failed", "--topic", self.source, "--count", str(count))
        # Wanted by nobody.
        self.command("emit", "device.created", "--topic", self.source)

    def traffic(self, seconds, count=3):
        end = time.time() + seconds
        while time.time() < end:
            self.emit(count)
            time.sleep(0.7)

    def prepare(self):
        self.command("topics", "apply", POSTRIDER__KAFKA__TOPIC_PREFIX=f"events.{self.run}.", POSTRIDER__INTAKE__TOPICS="none")
        self.command("topics", "apply")
        webhooks = [{"id": "wh_steady", "name": "steady", "url": self.receivers.url("/steady"), "customer": None, "event_types": ["job.*"]},
                    {"id": "wh_paced", "name": "paced", "url": self.receivers.url("/paced"), "customer": None, "event_types": ["job.*"],
                     "rate_limit": {"requests": 2, "per_seconds": 1, "burst": 2}}]
        for number in range(DYING):
            # Without a retry an attempt that fails is a dead letter; with them the script would take hours.
            webhooks.append({"id": f"wh_dying_{number}", "name": f"dying {number}", "url": self.receivers.url("/dying"), "customer": None,
                             "event_types": ["job.*"], "max_retries": 0})
        path = FOLDER / "webhooks.json"
        path.write_text(json.dumps({"webhooks": webhooks}))
        self.command("subscriptions", "apply", "-f", str(path))

    def observe(self):
        rules = (ROOT / "dashboards/alerts/postrider.rules.yaml").read_text()
        rules = re.sub(r"interval: 30s", "interval: 1s", rules)
        # A minute of waiting becomes a second.
        rules = re.sub(r"^(\s+for: \d+)m$", r"\1s", rules, flags=re.M)
        (FOLDER / "postrider.rules.yaml").write_text(rules)
        (FOLDER / "prometheus.yaml").write_text(f"""
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [postrider.rules.yaml]
scrape_configs:
  - job_name: postrider
    static_configs: [{{targets: ["127.0.0.1:{self.telemetry}"]}}]
""")
        self.start("prometheus", [self.prometheus, f"--config.file={FOLDER}/prometheus.yaml", f"--storage.tsdb.path={FOLDER}/data-{self.run}",
                                  f"--web.listen-address=127.0.0.1:{self.port}"])
        self.wait("Prometheus to be ready", lambda: self.get(self.port, "/-/ready"))
        # Until the first scrape there is no instance, and the alert for that is right.
        self.wait("the first scrape", lambda: self.value("postrider_build_info") == 1)
        time.sleep(3)

    def play(self):
        begin = time.time()
        say("all is well")
        self.traffic(12)
        say("eight endpoints die, and a webhook is paused")
        with self.receivers.lock:
            self.receivers.failing.add("/dying")
        self.command("subscriptions", "pause", "wh_paced")
        self.traffic(30)
        self.wait("eight webhooks to be tripped", lambda: self.value('count(postrider_webhook_state{state=~"tripped|probing"} == 1)') == DYING)
        self.wait("the alerts", lambda: MUST_FIRE <= self.fired(begin))
        self.wait("deliveries to be held", lambda: self.value("sum(postrider_held)") > 0, 90)
        say("the endpoints recover, the webhook is resumed")
        with self.receivers.lock:
            self.receivers.failing.clear()
        self.command("subscriptions", "resume", "wh_paced")
        self.traffic(15)
        self.wait("all webhooks to pass", lambda: self.value('count(postrider_webhook_state{state="passing"} == 1)') == DYING + 2, 120)
        dead = self.value("sum(postrider_dead_letters_total)")
        say(f"{dead:.0f} dead letters are replayed")
        self.command("dead-letters", "replay", "--reason", "exhausted", "--yes")
        self.wait("the replayed to be sent", lambda: self.value("sum(postrider_replayed_total)") >= dead)
        self.wait("nothing to wait", lambda: self.value("sum(postrider_delayed) + sum(postrider_held) + sum(postrider_webhook_pending)") == 0, 120)
        time.sleep(8)
        return begin

    def fired(self, begin):
        result = self.api("query_range", query='ALERTS{alertstate="firing"}', start=begin, end=time.time(), step=1)["result"]
        return {series["metric"]["alertname"] for series in result}

    def panels(self, begin, end):
        """Every query of every panel, as Grafana would ask it."""
        series, empty = [], []
        for name in DASHBOARDS:
            for panel in json.loads((ROOT / "dashboards" / name).read_text())["panels"]:
                for target in panel.get("targets", []):
                    query = target["expr"].replace("$__rate_interval", "10s").replace("$instance", ".*").replace("$webhook", ".*")
                    result = self.api("query_range", query=query, start=begin, end=end, step=1)["result"]
                    values = sum(value != "NaN" for one in result for _, value in one["values"])
                    if values == 0:
                        empty.append(f"{name}, {panel['title']}: {query}")
                    series.append({"dashboard": name, "panel": panel["title"], "unit": panel["fieldConfig"]["defaults"]["unit"],
                                   "type": panel["type"], "legend": target["legendFormat"], "result": result})
        return series, empty

    def end(self):
        for child in reversed(self.children):
            if child.poll() is None:
                child.terminate()
                try:
                    child.wait(25)
                except subprocess.TimeoutExpired:
                    child.kill()


def main():
    if len(sys.argv) != 3 or "KAFKA_BOOTSTRAP_SERVERS" not in os.environ:
        sys.exit("usage: KAFKA_BOOTSTRAP_SERVERS=... incident.py POSTRIDER PROMETHEUS (or `make incident`)")
    incident = Incident(*sys.argv[1:])
    try:
        say("topics and webhooks")
        incident.prepare()
        router = incident.start("postrider", [incident.postrider, "--config", incident.config, "run"])
        incident.wait("Postrider to be ready", lambda: incident.get(incident.telemetry, "/readyz"))
        incident.observe()
        begin = incident.play()
        series, empty = incident.panels(begin, time.time())
        (FOLDER / "series.json").write_text(json.dumps(series))
        fired = incident.fired(begin)
        say(f"alerts that fired: {', '.join(sorted(fired))}")
        say(f"{len(series)} queries of panels, {len(empty)} without data")
        say("the instance goes away")
        router.terminate()
        router.wait(25)
        incident.wait("PostriderNoInstance", lambda: "PostriderNoInstance" in incident.fired(begin))
        faults = [f"no data: {one}" for one in empty]
        faults += [f"did not fire: {one}" for one in sorted(MUST_FIRE - fired)]
        faults += [f"fired and should not: {one}" for one in sorted(fired - MUST_FIRE)]
        if faults:
            sys.exit("\n".join(faults))
        say("every panel showed something, and just the right alerts fired")
    finally:
        incident.end()


if __name__ == "__main__":
    main()
