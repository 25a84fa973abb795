"""What a run looks like to its user: progress while it works, tables in the terminal, one HTML page
at the end.
"""

from allmodes.report.page import write_report
from allmodes.report.progress import Progress
from allmodes.report.tables import print_result, print_table

__all__ = ["Progress", "print_result", "print_table", "write_report"]
