"""Files: an Unlearner as named arrays (`saved`), and named arrays in one file (`archive`)."""
