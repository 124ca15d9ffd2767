"""From a row to a conversation: names, values, turns and the table of formats."""
