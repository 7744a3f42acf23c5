#!/usr/bin/env python3
"""Checks dashboards/ and deploy/ with the tools that the registries offer; `make deploy-check`.

One line a check. Where a check cannot be done here the line says NOT RUN and why; a check whose tool can be fetched never is.
`--mistakes` plants one mistake after the other in a copy, and demands that the right check finds it: a check that cannot fail is no check.

usage: check.py [--mistakes] POSTRIDER
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import compose_spec
import kubernetes_validate
import yaml

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
KUBERNETES = "1.34"
# Resource kinds that operators add; their schemas are not part of Kubernetes. Form of the rest is checked, and rules by promtool.
FOREIGN = {"ServiceMonitor", "PrometheusRule", "ScaledObject", "KafkaTopic", "KafkaUser"}
EVERYTHING = ("serviceMonitor.enabled=true,prometheusRule.enabled=true,dashboards.enabled=true,keda.enabled=true,networkPolicy.enabled=true,"
              "config.web.listen=0.0.0.0:8080")


class Wrong(Exception):
    """What is wrong, for people."""


class NotRun(Exception):
    """Why a check cannot be done on this machine."""


def run(*command, cwd=None, text_in=None):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=cwd, input=text_in)
    if done.returncode != 0:
        raise Wrong((done.stdout + done.stderr).strip())
    return done.stdout


def tool(name):
    return run(REPOSITORY / "tests" / "tools.sh", name).strip()


def expect(condition, message):
    if not condition:
        raise Wrong(message)


class Checks:
    """Each public method is a check; `root` is the tree that it looks at."""

    def __init__(self, root, postrider):
        self.root, self.postrider = root, postrider
        self.chart = root / "deploy/helm/postrider"

    def template(self, *settings):
        arguments = [part for setting in settings for part in ("--set", setting)]
        return run(tool("helm"), "template", "postrider", self.chart, "--namespace", "postrider", "--kube-version", KUBERNETES + ".0", *arguments)

    def dashboards_are_generated(self):
        run(sys.executable, self.root / "dashboards/generate.py", "--check")

    def queries_are_promql(self):
        rules = []
        for path in sorted((self.root / "dashboards").glob("*.json")):
            for panel in json.loads(path.read_text())["panels"]:
                for target in panel.get("targets", []):
                    query = target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$webhook", ".*")
                    rules.append({"record": f"panel:number:{len(rules)}", "expr": query})
        expect(len(rules) > 50, f"only {len(rules)} queries were found")
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}, file)
            file.flush()
            run(tool("promtool"), "check", "rules", file.name)

    def alerts_fire_when_they_should(self):
        folder = self.root / "dashboards/alerts"
        run(tool("promtool"), "check", "rules", folder / "postrider.rules.yaml")
        run(tool("promtool"), "test", "rules", "postrider.rules.test.yaml", cwd=folder)

    def the_chart_has_the_dashboards_and_rules(self):
        for path in [*(self.root / "dashboards").glob("*.json"), self.root / "dashboards/alerts/postrider.rules.yaml"]:
            copy = self.chart / "files" / path.name
            expect(copy.exists() and copy.read_text() == path.read_text(), f"{copy.name} of the chart is not that of dashboards/; run `make dashboards`")

    def the_chart_is_good_kubernetes(self):
        run(tool("helm"), "lint", "--strict", "--quiet", self.chart)
        for settings in [(), (EVERYTHING,), ("kind=Deployment,staticMembership=false", EVERYTHING)]:
            self.manifests(self.template(*settings), 5 if not settings else 12)

    def manifests(self, text, least):
        seen = 0
        for document in filter(None, yaml.safe_load_all(text)):
            kind, name = document["kind"], document["metadata"]["name"]
            seen += 1
            if kind not in FOREIGN:
                try:
                    kubernetes_validate.validate(document, KUBERNETES, strict=True)
                except kubernetes_validate.ValidationError as fault:
                    raise Wrong(f"{kind} {name}: {fault.message}") from fault
            if kind in ("StatefulSet", "Deployment"):
                self.pod_is_restricted(document["spec"]["template"]["spec"])
            if kind == "ConfigMap" and "postrider.toml" in document["data"]:
                self.configuration_is_taken(document["data"]["postrider.toml"])
            if kind == "PrometheusRule":
                with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                    yaml.safe_dump(document["spec"], file)
                    file.flush()
                    run(tool("promtool"), "check", "rules", file.name)
        expect(seen >= least, f"only {seen} manifests")

    @staticmethod
    def pod_is_restricted(pod):
        """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
        expect(pod["securityContext"]["runAsNonRoot"] is True, "the pod may run as root")
        expect(pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", "the pod has no seccomp profile")
        for container in pod["containers"]:
            context = container["securityContext"]
            expect(context["allowPrivilegeEscalation"] is False, "privileges can grow")
            expect(context["capabilities"]["drop"] == ["ALL"], "capabilities are kept")
            expect(context["readOnlyRootFilesystem"] is True, "the root file system can be written")
        expect(all(set(volume) & {"configMap", "emptyDir", "secret"} for volume in pod["volumes"]), "a volume that is not allowed")

    def configuration_is_taken(self, text):
        """By the program itself, which refuses unknown keys; that the broker does not answer comes after that."""
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(text)
            file.flush()
            done = subprocess.run([self.postrider, "--config", file.name, "health", "--address", "127.0.0.1:1"], capture_output=True, text=True)
            expect("configuration is wrong" not in done.stderr, done.stderr)
            done = subprocess.run([self.postrider, "--config", file.name, "health"], capture_output=True, text=True)
            expect("configuration is wrong" not in done.stderr and "no answer" in done.stderr or done.returncode == 0, done.stderr)

    def the_chart_refuses_what_is_not_a_value(self):
        for setting in ["nonsense=1", "kind=DaemonSet,staticMembership=false", "replicas=many", "kind=Deployment,staticMembership=true", "terminationGracePeriodSeconds=5"]:
            try:
                self.template(setting)
            except Wrong:
                continue
            raise Wrong(f"the chart takes --set {setting}")

    def plain_manifests_are_the_chart_s(self):
        wanted = plain(self.template())
        path = self.root / "deploy/kubernetes/postrider.yaml"
        expect(path.exists() and path.read_text() == wanted, "deploy/kubernetes/postrider.yaml is not what the chart renders; run `make deploy`")
        self.manifests(wanted, 5)

    def compose_is_good(self):
        path = self.root / "deploy/compose/compose.yaml"
        # With anchors and merge keys carried out: the library takes them for members.
        text = yaml.safe_dump(yaml.safe_load(path.read_text()))
        try:
            compose_spec.PyCompose.from_yaml(text).validate()
        except Exception as fault:
            raise Wrong(f"compose.yaml: {fault}") from fault
        document = yaml.safe_load(text)
        services = document["services"]
        expect(len(services) >= 8, f"only {len(services)} services")
        for name, service in services.items():
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                if source.startswith("."):
                    expect((path.parent / source).resolve().exists(), f"{name} mounts {source}, which does not exist")
                else:
                    expect(source in document["volumes"], f"{name} mounts the volume {source}, which is not declared")
            for other in service.get("depends_on", []):
                expect(other in services, f"{name} depends on {other}, which does not exist")

    def compose_as_docker_sees_it(self):
        if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode != 0:
            raise NotRun("no docker compose here; `docker compose -f deploy/compose/compose.yaml config -q` is what it would run")
        run("docker", "compose", "-f", self.root / "deploy/compose/compose.yaml", "config", "-q")

    def the_dockerfile_is_clean(self):
        run(pathlib.Path(sys.executable).parent / "hadolint", self.root / "deploy/docker/Dockerfile")
        # What it copies must be in the context.
        for line in (self.root / "deploy/docker/Dockerfile").read_text().splitlines():
            if line.startswith("COPY ") and "--from" not in line:
                for source in line.split()[1:-1]:
                    expect((REPOSITORY / source).exists(), f"COPY {source}: there is no such thing")

    def systemd_takes_the_unit(self):
        if not shutil.which("systemd-analyze"):
            raise NotRun("no systemd-analyze here")
        unit = (self.root / "deploy/systemd/postrider.service").read_text()
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "postrider.service"
            path.write_text(unit.replace("/usr/local/bin/postrider", str(pathlib.Path(self.postrider).resolve())))
            done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True)
        # It warns of unknown keys with exit code 0.
        expect(done.returncode == 0 and not done.stderr.strip(), done.stderr)

    def strimzi_topics_are_the_planned_ones(self):
        plan = run(self.postrider, "--config", self.root / "config/postrider.toml", "topics", "plan", "--output", "json")
        run(sys.executable, self.root / "tests/deploy/strimzi.py", "--check", text_in=plan)
        user = yaml.safe_load((self.root / "deploy/strimzi/user.yaml").read_text())
        known = {"Read", "Write", "Describe", "DescribeConfigs", "Create"}
        for rule in user["spec"]["authorization"]["acls"]:
            expect(set(rule["operations"]) <= known, f"more rights than are needed: {rule['operations']}")


def plain(text):
    return "# Rendered from deploy/helm/postrider with its default values, by `make deploy`: for those who use no Helm.\n" + text


CHECKS = [name for name in vars(Checks) if name not in ("template", "manifests", "pod_is_restricted", "configuration_is_taken") and not name.startswith("_")]

# File, what is replaced by what, and the check that must find it.
MISTAKES = [
    ("dashboards/overview.json", "sum(postrider_held", "sum((postrider_held", "queries_are_promql"),
    ("dashboards/webhook.json", '"unit": "s"', '"unit": "ms"', "dashboards_are_generated"),
    ("dashboards/alerts/postrider.rules.yaml", "> 900", "> 90000", "alerts_fire_when_they_should"),
    ("dashboards/alerts/postrider.rules.yaml", "absent(", "absent((", "alerts_fire_when_they_should"),
    ("dashboards/alerts/postrider.rules.yaml", "for: 5m", "for: 6m", "the_chart_has_the_dashboards_and_rules"),
    ("deploy/helm/postrider/templates/workload.yaml", "containerPort: 8081", "containerport: 8081", "the_chart_is_good_kubernetes"),
    ("deploy/helm/postrider/templates/workload.yaml", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "the_chart_is_good_kubernetes"),
    ("deploy/helm/postrider/templates/service.yaml", "clusterIP: None", "clusterIp: None", "the_chart_is_good_kubernetes"),
    ("deploy/helm/postrider/values.yaml", "bootstrap_servers:", "bootstrap_server:", "the_chart_is_good_kubernetes"),
    ("deploy/helm/postrider/values.schema.json", '"StatefulSet", "Deployment"', '"StatefulSet", "Deployment", "DaemonSet"', "the_chart_refuses_what_is_not_a_value"),
    ("deploy/kubernetes/postrider.yaml", "replicas: 2", "replicas: 3", "plain_manifests_are_the_chart_s"),
    ("deploy/compose/compose.yaml", "./webhooks.yaml:", "./webhook.yaml:", "compose_is_good"),
    ("deploy/compose/compose.yaml", "restart: unless-stopped", "restart: sometimes", "compose_is_good"),
    ("deploy/docker/Dockerfile", "FROM rust:1.90-bookworm", "FROM rust", "the_dockerfile_is_clean"),
    ("deploy/systemd/postrider.service", "WatchdogSec=30", "WatchdogSecs=30", "systemd_takes_the_unit"),
    ("deploy/strimzi/topics.yaml", "partitions: 64", "partitions: 6", "strimzi_topics_are_the_planned_ones"),
    ("deploy/strimzi/user.yaml", "DescribeConfigs, Create", "DescribeConfigs, Create, Delete", "strimzi_topics_are_the_planned_ones"),
]


def mistakes(postrider):
    missed = 0
    for file, before, after, check in MISTAKES:
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for part in ("dashboards", "deploy", "config", "tests/deploy"):
                shutil.copytree(REPOSITORY / part, root / part)
            text = (root / file).read_text()
            expect(before in text, f"{file} has no {before!r} any more; plant another mistake")
            (root / file).write_text(text.replace(before, after))
            try:
                getattr(Checks(root, postrider), check)()
                print(f"MISSED    {file}: {before!r} -> {after!r} by {check}")
                missed += 1
            except Wrong as found:
                print(f"found     {file}: {before!r} -> {after!r}: {str(found).strip().splitlines()[-1][:110]}")
            except NotRun as why:
                print(f"NOT RUN   {file}: {why}")
    return missed


def main():
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    if len(arguments) != 1:
        sys.exit("usage: check.py [--mistakes | --write] POSTRIDER (or `make deploy-check`)")
    if "--mistakes" in sys.argv:
        sys.exit(1 if mistakes(arguments[0]) else 0)
    checks = Checks(REPOSITORY, arguments[0])
    if "--write" in sys.argv:
        (REPOSITORY / "deploy/kubernetes/postrider.yaml").write_text(plain(checks.template()))
        return
    failed = 0
    for name in CHECKS:
        words = name.replace("_s", "'s", 1) if name.endswith("_s") else name
        try:
            getattr(checks, name)()
            print(f"good      {words.replace('_', ' ')}")
        except NotRun as why:
            print(f"NOT RUN   {words.replace('_', ' ')}: {why}")
        except Wrong as fault:
            failed += 1
            print(f"WRONG     {words.replace('_', ' ')}\n{fault}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
