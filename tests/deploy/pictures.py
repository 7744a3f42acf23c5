#!/usr/bin/env python3
"""Draws the panels of the Overview from what Prometheus answered in a real run (target/incident/series.json, made by `make incident`).

Not Grafana, but the same queries and the same numbers. usage: pictures.py SERIES.json PICTURE.png
"""

import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BACKGROUND, PANEL, TEXT, GRID = "#111217", "#181b1f", "#ccccdc", "#2c3235"
COLORS = ["#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#fade2a", "#96d98d", "#ffa6b0"]


def human(value, unit):
    if unit == "percentunit":
        return f"{value * 100:.1f} %"
    if unit == "s":
        return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
    return f"{value:.0f}" if abs(value) >= 10 or value == int(value) else f"{value:.1f}"


def points(one):
    return [(float(at), float(value)) for at, value in one["values"] if value not in ("NaN", "+Inf")]


def legend(template, labels):
    for name, value in labels.items():
        template = template.replace("{{" + name + "}}", value)
    return "" if template == "__auto" else template


def main():
    series = [one for one in json.load(open(sys.argv[1])) if one["dashboard"] == "overview.json"]
    panels = {}
    for one in series:
        panels.setdefault(one["panel"], []).append(one)
    stats = {name: queries for name, queries in panels.items() if queries[0]["type"] == "stat"}
    plots = {name: queries for name, queries in panels.items() if queries[0]["type"] == "timeseries"}
    begin = min(at for queries in plots.values() for one in queries for line in one["result"] for at, _ in points(line))
    plt.rcParams.update({"text.color": TEXT, "axes.labelcolor": TEXT, "xtick.color": TEXT, "ytick.color": TEXT, "font.size": 8, "font.family": "DejaVu Sans"})
    columns = 12
    figure = plt.figure(figsize=(16, 11), facecolor=BACKGROUND)
    rows = (len(plots) + 2) // 3
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[0.55] + [1] * rows, hspace=0.5, wspace=0.9, left=0.04, right=0.985, top=0.93, bottom=0.05)
    figure.suptitle("Postrider / Overview: a scripted incident (eight endpoints die and recover, dead letters are replayed)", color=TEXT, fontsize=12, x=0.04, ha="left")
    for place, (name, queries) in enumerate(stats.items()):
        axes = figure.add_subplot(grid[0, place * 2:place * 2 + 2], facecolor=PANEL)
        axes.set_xticks([]), axes.set_yticks([])
        line = [point for one in queries for result in one["result"] for point in points(result)]
        # What a screenshot in the middle of the incident would show is the worst; the end shows that it is over.
        axes.plot([at for at, _ in line], [value for _, value in line], color="#73bf69", linewidth=1, alpha=0.6)
        axes.set_title(name, color=TEXT, fontsize=9, loc="left")
        axes.text(0.5, 0.55, human(line[-1][1], queries[0]["unit"]) if line else "no data", ha="center", va="center", fontsize=20, transform=axes.transAxes)
    for place, (name, queries) in enumerate(plots.items()):
        column = (place % 3) * 4
        axes = figure.add_subplot(grid[1 + place // 3, column:column + 4], facecolor=PANEL)
        axes.set_title(name, color=TEXT, fontsize=9, loc="left")
        axes.grid(color=GRID, linewidth=0.5)
        number = 0
        for one in queries:
            for result in one["result"]:
                line = points(result)
                if not any(value for _, value in line) and len(one["result"]) > 3:
                    continue
                axes.plot([at - begin for at, _ in line], [value for _, value in line], linewidth=1.2, color=COLORS[number % len(COLORS)], label=legend(one["legend"], result["metric"]))
                number += 1
        if queries[0]["unit"] == "s":
            axes.yaxis.set_major_formatter(lambda value, _: human(value, "s"))
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f} s")
        if number:
            axes.legend(loc="upper left", fontsize=6.5, facecolor=PANEL, edgecolor=GRID, labelcolor=TEXT, framealpha=0.7, ncols=2 if number > 4 else 1)
        for edge in axes.spines.values():
            edge.set_color(GRID)
    figure.savefig(sys.argv[2], dpi=90, facecolor=BACKGROUND)


if __name__ == "__main__":
    main()
