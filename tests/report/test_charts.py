"""Line charts and the shares of trained layers."""

import math

import pytest

from zeroshift.report.charts import HEIGHT, LEFT, RIGHT, WIDTH, charts, curve, layer_shares


def test_layer_shares_run_from_input_to_output() -> None:
    records = [
        {"layers": ["synthesis.b16.conv0", "synthesis.b4.conv1"]},
        {"layers": ["synthesis.b16.conv0", "synthesis.b8.conv0"]},
        {"loss": 1.0},
    ]
    assert layer_shares(records) == [
        ("synthesis.b4.conv1", 0.5),
        ("synthesis.b8.conv0", 0.5),
        ("synthesis.b16.conv0", 1.0),
    ]
    assert layer_shares([{"loss": 1.0}]) == []


@pytest.mark.parametrize("values", [[2.0, 1.0, 4.0], [5.0], [1e-7, 3e-7], [-3.0, -3.0]])
def test_curves_stay_inside_their_frame(values: list[float]) -> None:
    chart = curve("loss", range(len(values)), values)
    points = [tuple(map(float, point.split(","))) for point in chart.path[1:].split(" L")]
    assert len(points) == len(values)
    assert all(LEFT <= x <= WIDTH - RIGHT and 0 <= y <= HEIGHT for x, y in points)
    order = sorted(range(len(values)), key=lambda i: values[i])
    heights = [points[i][1] for i in order]
    assert heights == sorted(heights, reverse=True), "larger values stand higher"
    assert 2 <= len(chart.y_ticks) <= 8
    assert chart.first == pytest.approx(values[0])
    assert len({text for _, text in chart.y_ticks}) == len(chart.y_ticks)


def test_charts_start_with_the_loss_and_leave_out_what_cannot_be_drawn() -> None:
    records = [
        {"step": step, "seconds": 0.1, "domain": float(step), "gap": gap, "loss": 2.0, "directional": 2.0}
        for step, gap in enumerate([1.0, math.nan])
    ]
    assert [chart.name for chart in charts(records)] == ["loss", "domain"]
    assert charts([]) == []


@pytest.mark.parametrize(
    ("steps", "labels"),
    [
        (1, ["0", "1"]), (2, ["0", "1", "2"]), (160, ["0", "50", "100", "160"]), (300, ["0", "100", "200", "300"]),
        (1001, ["0", "500", "1,001"]), (1100, ["0", "500", "1,000", "1,100"]), (530, ["0", "200", "400", "530"]),
    ],
)  # fmt: skip
def test_the_axis_ends_where_the_run_ends(steps: int, labels: list[str]) -> None:
    (chart,) = charts([{"step": step, "loss": step / 2} for step in range(steps)])
    assert [text for _, text in chart.x_ticks] == labels
    positions = [x for x, _ in chart.x_ticks]
    assert (positions[0], positions[-1]) == (LEFT, WIDTH - RIGHT)
    assert float(chart.path.rsplit(" L", 1)[-1].lstrip("M").split(",")[0]) == WIDTH - RIGHT, "and so does the curve"


def test_numbers_have_their_meaning() -> None:
    meanings = {"loss": "Lower is better."}
    drawn = charts([{"step": 0, "loss": 1.0, "other": 2.0}], meanings)
    assert [chart.meaning for chart in drawn] == ["Lower is better.", ""]
