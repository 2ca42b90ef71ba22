"""How the book is made: figures, tables, notebooks, the command line, the HTML and the PDF."""
