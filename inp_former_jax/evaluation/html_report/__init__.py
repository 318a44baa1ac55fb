"""The page that an evaluation ends with: report.html."""
