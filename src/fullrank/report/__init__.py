"""What training leaves behind, made visible: the HTML page, the comparison, the terminal panel."""

from fullrank.report.comparison import write_comparison
from fullrank.report.page import write_page
from fullrank.report.run import Run, read_run
from fullrank.report.summary import Summary, summarise

__all__ = ["Run", "Summary", "read_run", "summarise", "write_comparison", "write_page"]
