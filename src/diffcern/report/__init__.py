"""Reports on a run folder, made from its records alone: no model is loaded."""

from diffcern.report.html import write_report
from diffcern.report.summary import summarise, write_summary
from diffcern.report.tables import print_table
from diffcern.report.view import View, write_view

__all__ = ["View", "print_table", "summarise", "write_report", "write_summary", "write_view"]
