from encoders.checkpoint import add_file, load_spec, read_file  # noqa
