"""The device of a process: its precision, its memory, and what it computes with."""
