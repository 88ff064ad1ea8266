"""Figures of several runs, as Markdown."""

import os
import statistics


def figures(runs, key):
    return [run[key] for run in runs or [] if key in run]


def median(runs, key):
    return number(statistics.median(figures(runs, key)))


def share(runs, key):
    return f"{statistics.median(figures(runs, key)):.0%}"


def relative(of, limit, spent):
    return f"{of(limit) / of(spent):.2f}" if limit else "–"


def number(value):
    return f"{value:,.0f}".replace(",", " ") if value >= 100 else f"{value:.1f}"


def disturbance(result, is_pinned):
    """The share of the time that the server or the load was ready and did not run.

    Threads that are not pinned wait for each other: there it is the share of the machine that other
    programs had.
    """
    if is_pinned:
        return max(result.get("server_waiting", 0), result.get("client_waiting", 0))
    return result.get("others_busy", 0) / os.cpu_count()


def worst(runs):
    return f"{max(figures(runs, 'disturbed')):.0%}"


def table(title, columns, rows, first="server"):
    print(f"### {title}\n")
    print(f"| {first} | {' | '.join(columns)} |")
    print(f"| --- |{' ---: |' * len(columns)}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")
    print(flush=True)


def summary(title, rows):
    """`{row: {column: text}}`, where a row may lack columns."""
    columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
    if len(columns) > 1:
        rows = {name: [cells.get(column, "–") for column in columns] for name, cells in rows.items()}
        table(title, columns, rows)
