"""A plan becomes a workspace and a report of W&B, by wandb-workspaces. The only file that knows it."""

from __future__ import annotations

from typing import Any

import wandb_workspaces.reports.v2 as reports
import wandb_workspaces.workspaces as workspaces

from dvsn.dashboard.plan import Dashboard, Panel, Section
from dvsn.engine.boards.wandb_file import STEP


def workspace_of(plan: Dashboard, *, entity: str, project: str) -> workspaces.Workspace:
    """A saved view of a project: a section of panels each, and only the runs of the plan."""
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=f"dvsn {plan.title}",
        sections=[section_of(each) for each in plan.sections],
        settings=workspaces.WorkspaceSettings(x_axis=STEP, max_runs=20),
        runset_settings=workspaces.RunsetSettings(
            filters=[workspaces.Tags().isin(list(plan.runs))],
            order=[
                workspaces.Ordering(workspaces.Summary(f"best/{plan.score}"), ascending=plan.better == "less")
            ],
        ),
    )


def report_of(plan: Dashboard, *, entity: str, project: str) -> reports.Report:
    """A page with a heading a section, each with the panels over the same runs."""
    blocks: list[Any] = [reports.TableOfContents()]
    if plan.about:
        blocks.append(reports.P(plan.about))
    for section in plan.sections:
        runs = reports.Runset(
            entity=entity,
            project=project,
            name=plan.title,
            filters=[workspaces.Tags().isin(list(plan.runs))],
        )
        blocks += [
            reports.H2(section.name),
            reports.PanelGrid(runsets=[runs], panels=placed([panel_of(each) for each in section.panels])),
        ]
    return reports.Report(
        entity=entity,
        project=project,
        title=f"dvsn {plan.title}",
        description=plan.about,
        blocks=blocks,
        width="fluid",
    )


def placed(panels: list[Any]) -> list[Any]:
    """Three panels a row, of 8 of the page's 24 columns."""
    for number, panel in enumerate(panels):
        panel.layout = reports.Layout(x=8 * (number % 3), y=8 * (number // 3), w=8, h=8)
    return panels


def section_of(section: Section) -> workspaces.Section:
    return workspaces.Section(
        name=section.name, panels=[panel_of(each) for each in section.panels], is_open=section.open
    )


def panel_of(panel: Panel) -> Any:
    """W&B's panel for one of the plan."""
    options, title = panel.options, panel.title
    match panel.kind:
        case "line":
            return reports.LinePlot(
                title=title,
                x=STEP,
                y=[metric(each) for each in options.get("y", ())],
                metric_regex=options.get("pattern"),
                log_y=options.get("log_y"),
            )
        case "bars":
            return reports.BarPlot(title=title, metrics=[metric(each) for each in options["of"]])
        case "number":
            return reports.ScalarChart(title=title, metric=summary(options["of"]))
        case "scatter":
            return reports.ScatterPlot(title=title, x=summary(options["x"]), y=summary(options["y"]))
        case "pictures":
            return reports.MediaBrowser(title=title, media_keys=options["keys"], num_columns=2)
        case "table":
            return reports.WeavePanelSummaryTable(table_name=options["key"])
        case "matrix":
            return matrix_of(options["key"], title)
        case "parallel":
            columns = [
                reports.ParallelCoordinatesPlotColumn(metric=summary(each)) for each in options["columns"]
            ]
            return reports.ParallelCoordinatesPlot(title=title, columns=columns)
        case "importance":
            return reports.ParameterImportancePlot(with_respect_to=options["of"])
        case "compare":
            return reports.RunComparer(diff_only="split")
        case _:
            return reports.MarkdownPanel(markdown=options["text"])


def matrix_of(key: str, title: str) -> reports.CustomChart:
    """W&B's confusion matrix of the table that dvsn logs as `plots/KEY`."""
    return reports.CustomChart(
        query={"summaryTable": {"tableKey": f"Custom Chart Tables/plots/{key}_table"}},
        chart_name="wandb/confusion_matrix/v1",
        chart_fields={"Actual": "Actual", "Predicted": "Predicted", "nPredictions": "nPredictions"},
        chart_strings={"title": title},
    )


def metric(name: str) -> Any:
    """A logged value by its name, an option as config:NAME."""
    return (
        reports.Config(name.removeprefix("config:")) if name.startswith("config:") else reports.Metric(name)
    )


def summary(name: str) -> Any:
    """The same, of a value its last or best one."""
    return metric(name) if name.startswith("config:") else reports.SummaryMetric(name)
