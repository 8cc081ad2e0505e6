"""Examples of what topics are for, as pages to open and to copy."""
