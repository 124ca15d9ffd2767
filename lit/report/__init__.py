"""Pages of sections, with pictures: in a terminal, in Markdown and in HTML."""
