"""Pages and pictures: the same sections in a terminal, in Markdown and in HTML."""
