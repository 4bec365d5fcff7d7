"""What was found, shown: terminal, report.html, exports, in English and Korean. Finds nothing out itself."""
