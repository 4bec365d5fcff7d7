"""Shows results: terminal, report.html and exports, in English and Korean. Computes no statistics itself."""
