"""The rules: every bound by name; the paper's claims and the book's own hypotheses, judged."""
