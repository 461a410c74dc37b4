"""Pages and pictures: one offline HTML file that shows what was found and why."""

from blemish.report.charts import Curve, Histogram, Line, Series
from blemish.report.colours import HEAT, displayable, heat, overlay
from blemish.report.inspection import ModelSummary, Panels, write_inspection_report
from blemish.report.page import (
    Figures,
    Gallery,
    Panel,
    PictureRow,
    Prose,
    Scale,
    Section,
    Settings,
    Table,
    write_page,
)

__all__ = [
    "HEAT",
    "Curve",
    "Figures",
    "Gallery",
    "Histogram",
    "Line",
    "ModelSummary",
    "Panel",
    "Panels",
    "PictureRow",
    "Prose",
    "Scale",
    "Section",
    "Series",
    "Settings",
    "Table",
    "displayable",
    "heat",
    "overlay",
    "write_inspection_report",
    "write_page",
]
