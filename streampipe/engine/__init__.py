"""From a pipeline to what runs it: ``compile`` chooses an engine, ``life`` says which pass comes next."""
