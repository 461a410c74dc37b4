"""Reports: offline HTML pages with heat maps, charts and tables."""

from blemish.report.charts import CurveChart, Histogram, Line, Series
from blemish.report.colours import HEAT, displayable, heat, overlay
from blemish.report.inspection import ModelSummary, write_inspection_report
from blemish.report.page import (
    FigurePanel,
    Figures,
    Gallery,
    ImageRow,
    Prose,
    Scale,
    Section,
    SettingsSection,
    TableSection,
    write_page,
)
from blemish.report.views import ImageViews

__all__ = [
    "HEAT",
    "CurveChart",
    "FigurePanel",
    "Figures",
    "Gallery",
    "Histogram",
    "ImageRow",
    "ImageViews",
    "Line",
    "ModelSummary",
    "Prose",
    "Scale",
    "Section",
    "Series",
    "SettingsSection",
    "TableSection",
    "displayable",
    "heat",
    "overlay",
    "write_inspection_report",
    "write_page",
]
