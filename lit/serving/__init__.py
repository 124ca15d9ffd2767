"""What `lit.serve` opens: OpenAI's interface over HTTP, and a page."""
