#!/usr/bin/env python3
"""What no tool for one format can see: whether docker-compose.yml, the Kubernetes manifest, the
dashboard and docs/runbook.md agree with each other and with `flowcast settings --json`.

    python3 deploy/check.py --flowcast target/debug/flowcast
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
DASHBOARD = ROOT / "deploy/grafana/dashboards/flowcast.json"
MANIFEST = ROOT / "deploy/kubernetes/flowcast.yaml"
RUNBOOK = ROOT / "docs/runbook.md"

failures = []


def expect(holds, what):
    if not holds:
        failures.append(what)


def settings(flowcast):
    """Every setting of `flowcast serve`: environment name → (group, flag, default or None, help)."""
    command = [flowcast, "settings", "--json"]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env={}).stdout)
    found = {}
    for it in told:
        # A default that depends on something else stands in the help, in words.
        words = re.fullmatch(r"(.*?)(?: \[default: ([^\]]*)\])?", " ".join(it["help"].split()))
        found[it["env"]] = (it["group"], it["flag"], it["default"] or words[2], words[1])
    assert len(found) > 40, f"{' '.join(map(str, command))} names only {len(found)} settings"
    return found


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text)[1])


def check_compose(known):
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services = compose["services"]
    nodes = {name: service for name, service in services.items() if service.get("image") == "flowcast"}
    expect(len(nodes) == 2, f"docker-compose.yml: expected two nodes, got {list(nodes)}")
    hosts = [node["hostname"] for node in nodes.values()]
    expect(len(set(hosts)) == len(hosts), "docker-compose.yml: two nodes with one host name share a Kafka group")
    drain = int(known["WS_SHUTDOWN_TIMEOUT_SECONDS"][2])
    for name, node in nodes.items():
        for setting in node["environment"]:
            expect(setting in known, f"docker-compose.yml: {name} has the setting {setting}, which flowcast has not")
        grace = seconds(node["stop_grace_period"])
        expect(grace > drain, f"docker-compose.yml: {name} is killed after {grace} s, before its drain of {drain} s")
    for name, service in services.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            there = (ROOT / source).exists() if source.startswith(".") else source in compose["volumes"]
            expect(there, f"docker-compose.yml: {name} mounts {source}, which is not there")
    alone = {"ws-realtime"}
    while True:
        needed = alone | {other for name in alone for other in services[name].get("depends_on", {})}
        if needed == alone:
            break
        alone = needed
    expect(alone == {"ws-realtime", "kafka", "topics"}, f"`docker compose up ws-realtime` starts {sorted(alone)}")
    address = services["haproxy"]["networks"]["default"]["ipv4_address"]
    trusted = nodes["ws-realtime"]["environment"]["FLOWCAST_TRUSTED_PROXIES"]
    expect(trusted == f"{address}/32", f"docker-compose.yml: the nodes trust {trusted}, the proxy is {address}")
    scraped = {
        target
        for job in yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
        for group in job["static_configs"]
        for target in group["targets"]
    }
    for target in scraped:
        expect(target.split(":")[0] in services, f"prometheus.yml: {target} is no service of docker-compose.yml")
    expect({name for name in nodes} <= {target.split(":")[0] for target in scraped}, "a node is not scraped")


def check_kubernetes(known):
    objects = {(it["kind"], it["metadata"]["name"]): it for it in yaml.safe_load_all(MANIFEST.read_text())}
    config = objects["ConfigMap", "flowcast"]["data"]
    spec = objects["StatefulSet", "flowcast"]["spec"]
    pod = spec["template"]["spec"]
    [container] = pod["containers"]
    for setting in [*config, *(variable["name"] for variable in container["env"])]:
        expect(setting in known, f"{MANIFEST.name}: the setting {setting} is none of flowcast's")
    expect("WS_AUTH_SECRET" not in config, f"{MANIFEST.name}: a secret in a ConfigMap")
    expect(not any(kind == "Secret" for kind, _ in objects), f"{MANIFEST.name}: a secret in the repository")
    drain = int(config["WS_SHUTDOWN_TIMEOUT_SECONDS"])
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    grace = pod["terminationGracePeriodSeconds"]
    expect(grace > pause + drain, f"{MANIFEST.name}: killed after {grace} s, needs {pause} + {drain} s")
    labels = spec["template"]["metadata"]["labels"]
    for (kind, name), it in objects.items():
        selector = it["spec"].get("selector", {}) if kind != "ConfigMap" else {}
        selector = selector.get("matchLabels", selector)
        expect(selector.items() <= labels.items(), f"{MANIFEST.name}: {kind} {name} selects no pod of ours")
    expect(("Service", spec["serviceName"]) in objects, f"{MANIFEST.name}: no service {spec['serviceName']}")


def panels():
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def check_dashboard():
    dashboard = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    expect(len(set(ids)) == len(ids), "dashboard: two panels with one id")
    cells = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        covered = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        expect(not covered & cells and at["x"] + at["w"] <= 24, f"dashboard: {panel['title']!r} lies over another panel")
        cells |= covered
    [source] = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    for panel in panels():
        expect(panel["datasource"]["uid"] == source["uid"], f"dashboard: {panel['title']!r} reads another source")
        expect(panel["targets"], f"dashboard: {panel['title']!r} shows nothing")


def tables(known):
    """The settings as the runbook has them: a heading and a table per group."""
    lines = []
    for group in dict.fromkeys(group for group, *_ in known.values()):
        lines += ["", f"### {group}", "", "| environment | flag | default | |", "|---|---|---|---|"]
        for name, (of, flag, default, words) in known.items():
            if of == group:
                default = f"`{default}`" if default else ""
                lines.append(f"| `{name}` | `{flag}` | {default} | {words.replace('|', '/')} |")
    return lines


def check_runbook(known):
    """Line by line, so that a new setting, or another default, is told by its name."""
    text = RUNBOOK.read_text().splitlines()
    due = [line for line in tables(known) if line.startswith("| `")]
    for line in due:
        expect(line in text, f"runbook: missing or different (deploy/check.py --settings): {line}")
    for line in text:
        stale = re.match(r"\| `[A-Z_]+` \| `--", line) and line not in due
        expect(not stale, f"runbook: no such setting: {line}")


def check_alerts_are_explained():
    rules = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            expect(rule["alert"] in RUNBOOK.read_text(), f"runbook: nothing on the alert {rule['alert']}")


def dashboard_rules():
    queries = [target["expr"] for panel in panels() for target in panel["targets"]]
    known = {"$__rate_interval": "5m", "$instance": ".*"}
    for number, query in enumerate(queries):
        for variable, value in known.items():
            query = query.replace(variable, value)
        queries[number] = {"record": f"query:{number}", "expr": query}
    return yaml.safe_dump({"groups": [{"name": "dashboard", "rules": queries}]})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flowcast", type=Path, default=ROOT / "target/debug/flowcast", help="default: %(default)s")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--dashboard-rules", action="store_true",
                         help="print the dashboard's queries as a rules file, for promtool")  # fmt: skip
    instead.add_argument("--settings", action="store_true", help="print the tables of docs/runbook.md as they must be")
    asked = parser.parse_args()
    if asked.dashboard_rules:
        print(dashboard_rules())
        return 0
    known = settings(asked.flowcast)
    if asked.settings:
        print("\n".join(tables(known)).strip())
        return 0
    check_compose(known)
    check_kubernetes(known)
    check_dashboard()
    check_runbook(known)
    check_alerts_are_explained()
    print("\n".join(failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
