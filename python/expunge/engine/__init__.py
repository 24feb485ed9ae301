"""How requests are carried out. Private: names may change with every release."""
