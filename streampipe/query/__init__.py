"""What may be asked of a sample without decoding it: the language of ``where``, and what datasets call things."""
