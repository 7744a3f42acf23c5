#!/usr/bin/env python3
"""Writes deploy/strimzi/topics.yaml from what `postrider topics plan --output json` says (stdin); `--check` only compares.

The plan of a cluster with one broker leaves min.insync.replicas out; production has three, so it is put in here.
"""

import json
import pathlib
import re
import sys

PATH = pathlib.Path(__file__).resolve().parents[2] / "deploy" / "strimzi" / "topics.yaml"
HEAD = """# The topics of Postrider for Strimzi's topic operator; made from `postrider topics plan` by `make deploy` and held to it by `make deploy-check`.
# With these set kafka.create_topics = false. Source topics belong to their producers and are not here.
"""


def number(text):
    return text if re.fullmatch(r"[0-9]+", text) else json.dumps(text)


def text(plan):
    parts = [HEAD]
    for topic in plan:
        settings = dict(topic["settings"], **{"min.insync.replicas": "2"})
        lines = "".join(f"    {name}: {number(settings[name])}\n" for name in sorted(settings))
        parts.append(f"""---
# {topic['purpose']}
apiVersion: kafka.strimzi.io/v1beta2
kind: KafkaTopic
metadata:
  name: {topic['topic']}
  labels:
    strimzi.io/cluster: kafka
spec:
  partitions: {topic['partitions']}
  replicas: 3
  config:
{lines}""")
    return "".join(parts)


def main():
    wanted = text(json.load(sys.stdin))
    if "--check" not in sys.argv[1:]:
        PATH.write_text(wanted)
    elif not PATH.exists() or PATH.read_text() != wanted:
        sys.exit("deploy/strimzi/topics.yaml is not what `postrider topics plan` says; run `make deploy`")


if __name__ == "__main__":
    main()
