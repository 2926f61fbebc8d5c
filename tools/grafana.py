"""The parts of Grafana's dashboard JSON that kubenurse's dashboards need.

Source: https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/ (schema v1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

# The version of Grafana 12.0. Newer ones migrate it; Grafana 10 and 11 know all fields that are used here.
SCHEMA_VERSION = 41
WIDTH = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}

GREEN, YELLOW, RED = "green", "yellow", "red"


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL query and the legend of its series. ``kind`` is Grafana's format of the answer."""

    expr: str
    legend: str = ""
    instant: bool = False
    kind: str = "time_series"

    def target(self, ref: str) -> Json:
        """Return the query as a panel's target."""
        return {
            "datasource": SOURCE,
            "editorMode": "code",
            # The sources have readable lines; Grafana shows one line.
            "expr": re.sub(r"\s+", " ", self.expr).strip(),
            "format": self.kind,
            "instant": self.instant,
            "legendFormat": self.legend or "__auto",
            "range": not self.instant,
            "refId": ref,
        }


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. ``width`` is in columns, 24 for the whole page; ``height`` is in Grafana's units of 30 pixels."""

    kind: str
    title: str
    description: str
    queries: tuple[Query, ...]
    width: int
    height: int
    defaults: Json
    options: Json
    overrides: Sequence[Json] = ()
    transformations: Sequence[Json] = field(default=())

    def render(self, number: int, x: int, y: int) -> Json:
        """Return the panel's JSON with its number and position."""
        return {
            "datasource": SOURCE,
            "description": self.description,
            "fieldConfig": {"defaults": self.defaults, "overrides": list(self.overrides)},
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "id": number,
            "options": self.options,
            "targets": [query.target(ref) for query, ref in zip(self.queries, "ABCDEFGH", strict=False)],
            "title": self.title,
            "transformations": list(self.transformations),
            "type": self.kind,
        }


@dataclass(frozen=True, slots=True)
class Row:
    """A heading and the panels below it, placed from left to right and line by line."""

    title: str
    panels: tuple[Panel, ...]


def steps(*bounds: tuple[float | None, str]) -> Json:
    """Return thresholds, given pairs of the lowest value (None for the first) and its colour."""
    return {"mode": "absolute", "steps": [{"value": value, "color": colour} for value, colour in bounds]}


def _last_value(**more: Any) -> Json:
    return {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, **more}


def stat(title: str, description: str, expr: str, unit: str = "short", thresholds: Json | None = None) -> Panel:
    """Return a panel with one number, coloured by its thresholds."""
    defaults = {"unit": unit, "color": {"mode": "thresholds"}, "thresholds": thresholds or steps((None, GREEN))}
    options = _last_value(colorMode="background", graphMode="area", textMode="auto")
    return Panel("stat", title, description, (Query(expr),), 4, 4, defaults, options)


def words(title: str, description: str, expr: str, legend: str) -> Panel:
    """Return a panel with the labels of a series, as text."""
    defaults = {"color": {"mode": "thresholds"}, "thresholds": steps((None, "blue"))}
    options = _last_value(colorMode="none", graphMode="none", textMode="value_and_name")
    return Panel("stat", title, description, (Query(expr, legend),), 4, 4, defaults, options)


def lines(
    title: str, description: str, *queries: Query, unit: str = "short", stacked: bool = False, width: int = 8
) -> Panel:
    """Return a panel with series over time."""
    stacking = {"group": "A", "mode": "normal" if stacked else "none"}
    custom = {"fillOpacity": 40 if stacked else 8, "lineWidth": 1, "showPoints": "never", "stacking": stacking}
    defaults = {"unit": unit, "min": 0, "color": {"mode": "palette-classic"}, "custom": custom}
    options = {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return Panel("timeseries", title, description, queries, width, 8, defaults, options)


def heat(title: str, description: str, expr: str, width: int = 8) -> Panel:
    """Return a heat map of a classic histogram; ``expr`` yields one series for each ``le``."""
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": {
            "mode": "scheme",
            "scheme": "Oranges",
            "fill": "dark-orange",
            "scale": "exponential",
            "exponent": 0.5,
            "reverse": False,
            "steps": 64,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": True},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": "s"},
    }
    defaults = {"custom": {"scaleDistribution": {"type": "linear"}}}
    return Panel("heatmap", title, description, (Query(expr, "{{le}}", kind="heatmap"),), width, 8, defaults, options)


def timeline(title: str, description: str, expr: str, legend: str) -> Panel:
    """Return a panel with states over time, one line for each series of zeros and ones."""
    shown = {"0": {"text": "fails", "color": RED, "index": 0}, "1": {"text": "ok", "color": GREEN, "index": 1}}
    defaults = {
        "color": {"mode": "thresholds"},
        "thresholds": steps((None, RED), (1, GREEN)),
        "mappings": [{"type": "value", "options": shown}],
        "custom": {"fillOpacity": 80, "lineWidth": 0},
    }
    options = {
        "alignValue": "left",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False},
        "mergeValues": True,
        "rowHeight": 0.85,
        "showValue": "never",
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return Panel("state-timeline", title, description, (Query(expr, legend),), WIDTH, 10, defaults, options)


# Colours of the share of good checks, from never to always.
GOOD_SHARE = steps((None, RED), (0.5, "orange"), (0.9, YELLOW), (0.995, GREEN))
SHARE: Json = {"unit": "percentunit", "min": 0, "max": 1, "color": {"mode": "thresholds"}, "thresholds": GOOD_SHARE}


def matrix(title: str, description: str, expr: str, row: str, column: str) -> Panel:
    """Return a table with a row for each value of one label and a column for each value of another."""
    coloured = {**SHARE, "custom": {"align": "center", "cellOptions": {"type": "color-background", "mode": "basic"}}}
    heading = {
        "matcher": {"id": "byRegexp", "options": rf"{row}\\.*"},
        "properties": [{"id": "custom.cellOptions", "value": {"type": "auto"}}],
    }
    transposed = {
        "id": "groupingToMatrix",
        "options": {"rowField": row, "columnField": column, "valueField": "Value", "emptyValue": "empty"},
    }
    query = Query(expr, instant=True, kind="table")
    options = {"cellHeight": "sm", "showHeader": True}
    return Panel("table", title, description, (query,), WIDTH, 12, coloured, options, (heading,), (transposed,))


def table(title: str, description: str, expr: str, defaults: Json, width: int = 12) -> Panel:
    """Return a table of series with their labels and values, in the order of the query."""
    coloured = {
        "matcher": {"id": "byName", "options": "Value"},
        "properties": [{"id": "custom.cellOptions", "value": {"type": "color-background", "mode": "basic"}}],
    }
    without_time = {"id": "organize", "options": {"excludeByName": {"Time": True}}}
    query = Query(expr, instant=True, kind="table")
    options = {"cellHeight": "sm", "showHeader": True}
    return Panel("table", title, description, (query,), width, 10, defaults, options, (coloured,), (without_time,))


def query_variable(name: str, label: str, metric: str, *, many: bool) -> Json:
    """Return a variable with the values of label ``name`` on ``metric``; ``many`` allows several values and all."""
    query = f"label_values({metric}, {name})"
    # "All" must also match series without the label: a Prometheus of one cluster has no cluster label.
    every = {"allValue": ".*"} if many else {}
    current = {"text": ["All"], "value": ["$__all"], "selected": True} if many else {}
    return {
        "current": current,
        "datasource": SOURCE,
        "definition": query,
        "hide": 0,
        "includeAll": many,
        "label": label,
        "multi": many,
        "name": name,
        "options": [],
        "query": {"query": query, "refId": "A"},
        # Refresh whenever the time range changes, because nodes come and go.
        "refresh": 2,
        "sort": 7,
        "type": "query",
        **every,
    }


def _datasource_variable() -> Json:
    return {
        "current": {},
        "hide": 0,
        "includeAll": False,
        "label": "Data source",
        "multi": False,
        "name": "datasource",
        "options": [],
        "query": "prometheus",
        "refresh": 1,
        "type": "datasource",
    }


def dashboard(uid: str, title: str, description: str, variables: Iterable[Json], rows: Iterable[Row]) -> Json:
    """Return a dashboard; panels are numbered and placed in their order."""
    return {
        "annotations": {"list": []},
        "description": description,
        "editable": True,
        "graphTooltip": 1,
        "id": None,
        "links": [
            {
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
                "tags": ["kubenurse"],
                "targetBlank": False,
                "title": "kubenurse",
                "type": "dashboards",
            }
        ],
        "panels": _placed(rows),
        "refresh": "30s",
        "schemaVersion": SCHEMA_VERSION,
        "tags": ["kubenurse"],
        "templating": {"list": [_datasource_variable(), *variables]},
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "title": title,
        "uid": uid,
        "version": 1,
    }


def _placed(rows: Iterable[Row]) -> list[Json]:
    placed: list[Json] = []
    y = 0
    for row in rows:
        placed.append(_heading(row.title, len(placed) + 1, y))
        x, y, tallest = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > WIDTH:
                x, y, tallest = 0, y + tallest, 0
            placed.append(panel.render(len(placed) + 1, x, y))
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    return placed


def _heading(title: str, number: int, y: int) -> Json:
    place = {"h": 1, "w": WIDTH, "x": 0, "y": y}
    return {"collapsed": False, "gridPos": place, "id": number, "panels": [], "title": title, "type": "row"}
