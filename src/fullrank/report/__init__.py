"""Pages, comparisons and terminal output of runs and audits."""

from fullrank.report.compare.page import write_comparison
from fullrank.report.run.page import write_page
from fullrank.report.run.reading import Run, read_run
from fullrank.report.run.summary import Summary, summarise

__all__ = ["Run", "Summary", "read_run", "summarise", "write_comparison", "write_page"]
