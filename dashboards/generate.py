#!/usr/bin/env python3
"""Writes the Grafana dashboards from the descriptions below; `--check` only says whether the files are up to date.

Grafana's JSON is a thousand lines a dashboard, of which ten matter in a review. Those ten are here.
A panel: title, unit, [(PromQL, legend)], and what it means. Units are Grafana's. Row by row, a row is 24 wide.
"""

import json
import pathlib
import sys

FOLDER = pathlib.Path(__file__).resolve().parent
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
RATE = "[$__rate_interval]"
ME = 'instance=~"$instance"'


def panel(title, unit, queries, meaning, kind="timeseries", width=8, height=8, stack=False, red_above=None, red_below=None):
    return locals()


def stat(title, unit, query, meaning, **more):
    return panel(title, unit, [(query, "")], meaning, kind="stat", width=4, height=4, **more)


def quantile(share, metric, by="le"):
    return f"histogram_quantile({share}, sum by ({by}) (rate({metric}_bucket{{{ME}}}{RATE})))"


OVERVIEW = [
    ("Is it well?", [
        stat("Attempts that succeed", "percentunit",
             f'sum(rate(postrider_attempts_total{{{ME}, outcome="success"}}[5m])) / sum(rate(postrider_attempts_total{{{ME}, outcome!="rate_limited"}}[5m]))',
             "Share of the last 5 minutes' attempts that got a 2xx; 429 is pace, not failure.", red_below=0.99),
        stat("Events not yet routed", "short", f'sum(postrider_consumer_lag{{{ME}, stage="route"}})',
             "Records of the source topics that are not settled.", red_above=10000),
        stat("Oldest in a lane", "s", f"max(postrider_webhook_oldest_pending_seconds{{{ME}}})",
             "The delivery that waits longest at an endpoint, since it was made.", red_above=900),
        stat("Waiting for a retry", "short", f"sum(postrider_delayed{{{ME}}})", "Deliveries on the delay ladder."),
        stat("Dead letters, 24 h", "short", f"sum(increase(postrider_dead_letters_total{{{ME}}}[24h]))",
             "What was given up. `postrider dead-letters list` shows them.", red_above=1),
        stat("Webhooks not passing", "short",
             f'count(max by (webhook) (postrider_webhook_state{{{ME}, state=~"tripped|probing|disabled"}}) == 1) or vector(0)',
             "Tripped, probing or disabled endpoints.", red_above=1),
    ]),
    ("Throughput", [
        panel("Events to deliveries", "ops", [
            (f"sum(rate(postrider_events_consumed_total{{{ME}}}{RATE}))", "events read"),
            (f"sum(rate(postrider_events_matched_total{{{ME}}}{RATE}))", "events wanted"),
            (f"sum(rate(postrider_deliveries_created_total{{{ME}}}{RATE}))", "deliveries made"),
            (f'sum(rate(postrider_deliveries_total{{{ME}, ending="delivered"}}{RATE}))', "delivered"),
        ], "Delivered follows made; a gap that stays is what waits."),
        panel("Attempts by outcome", "ops",
              [(f"sum by (outcome) (rate(postrider_attempts_total{{{ME}}}{RATE}))", "{{outcome}}")],
              "What the receivers answer.", stack=True),
        panel("Endings", "ops", [(f"sum by (ending) (rate(postrider_deliveries_total{{{ME}}}{RATE}))", "{{ending}}")],
              "Every delivery ends in one of these.", stack=True),
    ]),
    ("Time", [
        panel("From the event to the 2xx", "s",
              [(quantile(share, "postrider_end_to_end_seconds"), name) for share, name in ((0.5, "median"), (0.95, "95 %"), (0.99, "99 %"))],
              "Retries and waits included; counts what was delivered."),
        panel("One attempt", "s",
              [(quantile(share, "postrider_attempt_duration_seconds"), name) for share, name in ((0.5, "median"), (0.95, "95 %"), (0.99, "99 %"))],
              "From name resolution to the last byte read: the receivers' speed."),
        panel("Oldest in a lane, ten worst webhooks", "s",
              [(f"topk(10, max by (webhook) (postrider_webhook_oldest_pending_seconds{{{ME}}}))", "{{webhook}}")],
              "Above 15 minutes the alert PostriderDeliveryWaits fires."),
    ]),
    ("What waits, and what was given up", [
        panel("Waiting on each rung", "short", [(f"sum by (rung) (postrider_delayed{{{ME}}})", "{{rung}}")],
              "Retries, rate limits and tripped breakers wait here.", stack=True),
        panel("Held", "short", [(f"sum(postrider_held{{{ME}}})", "held")], "For webhooks that are paused, or dead for long."),
        panel("Dead letters by reason, in 5 minutes", "short",
              [(f"sum by (reason) (increase(postrider_dead_letters_total{{{ME}}}[5m]))", "{{reason}}")],
              "Replay what can be mended.", stack=True),
        panel("Lag by stage", "short", [(f'sum by (stage) (postrider_consumer_lag{{{ME}, stage=~"route|deliver"}})', "{{stage}}")],
              "Records that a stage has not settled. Rises for long: more instances."),
        panel("Webhooks by state", "short",
              [(f"count by (state) (max by (webhook, state) (postrider_webhook_state{{{ME}}}))", "{{state}}")],
              "Of the webhooks that have labels (web.metrics_webhooks).", stack=True),
        panel("Replayed, and delayed by a rate limit", "ops", [
            (f"sum(rate(postrider_replayed_total{{{ME}}}{RATE}))", "replayed"),
            (f"sum(rate(postrider_rate_limited_total{{{ME}}}{RATE}))", "delayed by a rate limit"),
        ], "Both are work besides the new events."),
    ]),
]

HOOK = f'{ME}, webhook=~"$webhook"'
WEBHOOK = [
    ("This webhook", [
        stat("Attempts that succeed", "percentunit",
             f'sum(rate(postrider_webhook_attempts_total{{{HOOK}, outcome="success"}}[5m])) / sum(rate(postrider_webhook_attempts_total{{{HOOK}, outcome!="rate_limited"}}[5m]))',
             "Share of the last 5 minutes; empty when nothing was sent.", red_below=0.99),
        stat("In its lane", "short", f"sum(postrider_webhook_pending{{{HOOK}}})", "Waiting in memory or under way."),
        stat("Oldest in its lane", "s", f"max(postrider_webhook_oldest_pending_seconds{{{HOOK}}})", "Since it was made.", red_above=900),
        stat("Attempts, 24 h", "short", f"sum(increase(postrider_webhook_attempts_total{{{HOOK}}}[24h]))", "Every request, whatever its outcome."),
        stat("Attempts that failed, 24 h", "short",
             f'sum(increase(postrider_webhook_attempts_total{{{HOOK}, outcome!~"success|rate_limited"}}[24h])) or vector(0)',
             "Without 429.", red_above=1),
        panel("State", "none", [(f"max by (webhook, state) (postrider_webhook_state{{{HOOK}}}) == 1", "{{webhook}} {{state}}")],
              "passing, tripped, probing, paused or disabled.", kind="stat", width=4, height=4),
    ]),
    ("Over time", [
        panel("Attempts by outcome", "ops",
              [(f"sum by (outcome) (rate(postrider_webhook_attempts_total{{{HOOK}}}{RATE}))", "{{outcome}}")], "What the receiver answers.", stack=True, width=12),
        panel("State over time", "none",
              [(f"max by (webhook, state) (postrider_webhook_state{{{HOOK}}})", "{{webhook}} {{state}}")],
              "1 while in the state.", width=12),
        panel("In its lane, over time", "short", [(f"sum by (webhook) (postrider_webhook_pending{{{HOOK}}})", "{{webhook}}")],
              "Grows when the receiver takes less than arrives.", width=12),
        panel("Oldest in its lane, over time", "s", [(f"max by (webhook) (postrider_webhook_oldest_pending_seconds{{{HOOK}}})", "{{webhook}}")],
              "Since the delivery was made: what was on the ladder before counts.", width=12),
    ]),
]

PROCESS = [
    ("Kafka", [
        panel("Lag by topic", "short", [(f'sum by (stage, topic) (postrider_consumer_lag{{{ME}}})', "{{stage}} {{topic}}")],
              "For release it is what waits by intent."),
        panel("Worst partitions", "short",
              [(f'topk(10, postrider_consumer_lag{{{ME}, stage=~"route|deliver"}})', "{{topic}} {{partition}}")],
              "One partition far ahead of the others: one busy key or webhook."),
        panel("Partitions assigned", "short", [(f"sum by (stage, instance) (postrider_assigned_partitions{{{ME}}})", "{{stage}} {{instance}}")],
              "0 over all instances of a stage: nobody does its work."),
        panel("Rebalances in 10 minutes", "short", [(f"sum by (stage) (increase(postrider_rebalances_total{{{ME}}}[10m]))", "{{stage}}")],
              "A deployment makes a few; more means that instances die or stall."),
        panel("Records not settled", "short", [(f"sum by (stage) (postrider_ledger_open{{{ME}}})", "{{stage}}")], "Read, and not yet ended or put elsewhere."),
        panel("Oldest record not settled", "s", [(f"max by (stage) (postrider_ledger_oldest_seconds{{{ME}}})", "{{stage}}")],
              "For release it is the wait itself. route above 60 s: the alert PostriderLedgerStuck."),
        panel("Oldest on each rung", "s", [(f"max by (rung) (postrider_delayed_oldest_seconds{{{ME}}})", "{{rung}}")],
              "Never much more than the rung is long."),
        panel("Produces that failed, in 5 minutes", "short",
              [(f"sum by (topic) (increase(postrider_produce_errors_total{{{ME}}}[5m])) or vector(0)", "{{topic}}")],
              "Each is tried again; nothing is lost, but offsets stop."),
        panel("Source topics", "ops", [(f"sum by (topic) (rate(postrider_events_consumed_total{{{ME}}}{RATE}))", "{{topic}}"),
                                       (f"sum(rate(postrider_events_unmatched_total{{{ME}}}{RATE}))", "wanted by no webhook"),
                                       (f"sum(rate(postrider_events_tombstones_total{{{ME}}}{RATE})) or vector(0)", "tombstones")],
              "Records read."),
    ]),
    ("Catalog", [
        stat("Webhooks", "short", f"max(postrider_webhooks{{{ME}}})", "In the catalog."),
        stat("Catalog records not read", "short", f"sum(postrider_catalog_errors_total{{{ME}}})", "Since the start; the log names them.", red_above=1),
        stat("Source topics missing", "short", f"max(postrider_source_topics_missing{{{ME}}})", "They are waited for.", red_above=1),
        panel("Versions", "none", [(f"count by (version) (postrider_build_info{{{ME}}})", "{{version}}")], "Instances of each.", kind="stat", width=4, height=4),
    ]),
    ("History and API", [
        stat("History on disk", "bytes", f"max(postrider_history_bytes{{{ME}}})", "Of the largest store."),
        stat("History is behind by", "s", f"max(postrider_history_lag_seconds{{{ME}}})", "Lists in the API are that old.", red_above=60),
        stat("History writes", "ops", f"sum(rate(postrider_history_records_total{{{ME}}}[5m]))", "Records a second."),
        stat("History writes that failed, 24 h", "short", f"sum(increase(postrider_history_errors_total{{{ME}}}[24h]))", "Each is tried again.", red_above=1),
        stat("Refused tokens, 24 h", "short", f"sum(increase(postrider_authentication_failures_total{{{ME}}}[24h])) or vector(0)",
             "Missing, wrong or expired.", red_above=100),
        stat("Spans dropped, 24 h", "short", f"sum(increase(postrider_trace_spans_dropped_total{{{ME}}}[24h]))", "Traces have holes; deliveries go on.", red_above=1),
    ]),
    ("Process", [
        panel("Processor", "percentunit", [(f"rate(process_cpu_seconds_total{{{ME}, job=~\"postrider.*\"}}{RATE})", "{{instance}}")], "1 is one core."),
        panel("Memory", "bytes", [(f"process_resident_memory_bytes{{{ME}, job=~\"postrider.*\"}}", "{{instance}}")],
              "Bounded by configuration, never by what waits."),
        panel("Requests under way", "short", [(f"postrider_in_flight_requests{{{ME}}}", "{{instance}}")], "At most outbound.max_in_flight."),
        panel("Open files", "short", [(f"process_open_fds{{{ME}, job=~\"postrider.*\"}}", "{{instance}} open"),
                                      (f"process_max_fds{{{ME}, job=~\"postrider.*\"}}", "{{instance}} allowed")], "Connections, mostly."),
        panel("Up since", "dateTimeAsIso", [(f"process_start_time_seconds{{{ME}, job=~\"postrider.*\"}} * 1000", "{{instance}}")], "A restart shows here.", kind="stat", width=8, height=8),
    ]),
]


def variable(name, query, label, many=True):
    return {
        "type": "query", "name": name, "label": label, "datasource": DATASOURCE, "definition": query,
        "query": {"query": query, "refId": name}, "refresh": 2, "sort": 1, "multi": many, "includeAll": True,
        "allValue": ".*", "current": {"text": "All", "value": "$__all"},
    }


def thresholds(described):
    if described["red_above"] is not None:
        return {"mode": "absolute", "steps": [{"color": "green", "value": None}, {"color": "red", "value": described["red_above"]}]}
    if described["red_below"] is not None:
        return {"mode": "absolute", "steps": [{"color": "red", "value": None}, {"color": "green", "value": described["red_below"]}]}
    return {"mode": "absolute", "steps": [{"color": "text" if described["kind"] == "stat" else "green", "value": None}]}


def grafana_panel(number, described, x, y):
    defaults = {"unit": described["unit"], "min": 0, "thresholds": thresholds(described), "mappings": []}
    options = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    if described["kind"] == "timeseries":
        defaults["custom"] = {
            "drawStyle": "line", "lineWidth": 1, "fillOpacity": 25 if described["stack"] else 5, "showPoints": "never",
            "stacking": {"mode": "normal" if described["stack"] else "none", "group": "A"},
        }
    else:
        text = "name" if described["unit"] == "none" else "auto"
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area", "textMode": text}
    return {
        "id": number, "type": described["kind"], "title": described["title"], "description": described["meaning"], "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": described["width"], "h": described["height"]},
        "fieldConfig": {"defaults": defaults, "overrides": []}, "options": options,
        "targets": [
            {"refId": chr(65 + place), "datasource": DATASOURCE, "expr": query, "legendFormat": legend or "__auto",
             "instant": False, "range": True}
            for place, (query, legend) in enumerate(described["queries"])
        ],
    }


def dashboard(uid, title, rows, variables):
    panels, number, y = [], 0, 0
    for name, described in rows:
        number += 1
        panels.append({"id": number, "type": "row", "title": name, "collapsed": False, "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}, "panels": []})
        y, x, tallest = y + 1, 0, 0
        for one in described:
            if x + one["width"] > 24:
                x, y, tallest = 0, y + tallest, 0
            number += 1
            panels.append(grafana_panel(number, one, x, y))
            x, tallest = x + one["width"], max(tallest, one["height"])
        y += tallest
    return {
        "uid": uid, "title": title, "tags": ["postrider"], "schemaVersion": 39, "version": 1, "editable": True, "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"}, "timezone": "browser", "graphTooltip": 1, "panels": panels,
        "links": [{"type": "dashboards", "tags": ["postrider"], "title": "Postrider", "asDropdown": False, "keepTime": True, "includeVars": False}],
        "annotations": {"list": []},
        "templating": {"list": [
            {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "refresh": 1, "current": {}},
            variable("instance", "label_values(postrider_build_info, instance)", "Instance"), *variables,
        ]},
    }


DASHBOARDS = {
    "overview.json": dashboard("postrider-overview", "Postrider / Overview", OVERVIEW, []),
    "webhook.json": dashboard("postrider-webhook", "Postrider / Webhook", WEBHOOK,
                              [variable("webhook", "label_values(postrider_webhook_state, webhook)", "Webhook")]),
    "kafka-and-process.json": dashboard("postrider-kafka-and-process", "Postrider / Kafka and process", PROCESS, []),
}


def main():
    stale = []
    for name, content in DASHBOARDS.items():
        path, text = FOLDER / name, json.dumps(content, indent=1) + "\n"
        if "--check" in sys.argv[1:]:
            if not path.exists() or path.read_text() != text:
                stale.append(name)
        else:
            path.write_text(text)
    if stale:
        sys.exit(f"not up to date: {', '.join(stale)}; run `make dashboards`")


if __name__ == "__main__":
    main()
