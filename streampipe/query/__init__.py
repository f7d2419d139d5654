"""What may be asked of a sample without decoding it: the language of ``where``, what datasets call things,
and on which side of a split it is.
"""
