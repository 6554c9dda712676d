"""Methods compared with each other and with the truth."""
